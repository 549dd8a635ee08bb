"""The usual wiring: `@bentoml.api`, `get_online_features().to_df()` and predictions on the frame; nothing is logged."""

import os
import socket
import sys
from pathlib import Path

os.environ["BENTOML_DO_NOT_TRACK"] = "true"

import bentoml
import uvicorn
import xgboost as xgb

from features.definitions import VIEW
from features.home import Home
from features.store import open_store
from training.artifacts import load_release
from training.releases.ledger import champion_id


def service_of(home):
    store, root = open_store(home).feast, home.releases / champion_id(home)
    names = list(load_release(root).feature_names)
    models = {name: kind() for name, kind in (("churn", xgb.XGBClassifier), ("value", xgb.XGBRegressor))}
    models["uplift"] = xgb.XGBRegressor()
    for name, model in models.items():
        model.load_model(root / f"{name}.json")

    @bentoml.service(name="usual", workers=1)
    class Usual:
        @bentoml.api
        def decide(self, members: list[str]) -> list[dict]:
            rows = [{"member_id": member} for member in members]
            features = [f"{VIEW}:{name}" for name in names]
            frame = store.get_online_features(features=features, entity_rows=rows).to_df()[names]
            frame = frame.astype("float32")
            churn, value = models["churn"].predict_proba(frame)[:, 1], models["value"].predict(frame)
            uplift = models["uplift"].predict(frame).reshape(len(frame), -1)
            said = zip(members, churn.tolist(), value.tolist(), uplift.tolist(), strict=True)
            return [{"member_id": m, "churn_probability": c, "value": v, "uplift": u} for m, c, v, u in said]

    return Usual


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)  # who asks before the server is there waits
    app = service_of(Home(Path(sys.argv[1]))).to_asgi()
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/decide", flush=True)  # noqa: T201 (the benchmark reads it)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_config=None)).run([listening])
