"""Boosters of rows that stay where they are: the point-in-time join and XGBoost, both on Spark.

The door to `xgboost.spark`. Its workers build the trees together, each from its share of the rows, so that they differ
from those of one machine by where values are cut: within noise.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb

from features.as_of.frame import write_training_frame
from features.home import Home
from features.spark import plainly, session_of
from training.shape import Parameters


def boost_on_spark(
    home: Home, master: str, labelled: pd.DataFrame, names: Sequence[str], parameters: Parameters
) -> xgb.Booster:
    """Learn from members at their times, whose features Spark joins: only who, when and what followed goes there.

    Parameters
    ----------
    labelled : `member_id`, `as_of` and `label`, 0 or 1 where the objective is `binary:logistic`
    parameters : XGBoost's, and `rounds`
    """
    asked = labelled[["member_id", "as_of"]].assign(
        label=labelled["label"].astype(np.float64), row=range(len(labelled))
    )
    with TemporaryDirectory(dir=home.root, prefix=".training.", suffix=".part") as folder:
        pq.write_table(pa.Table.from_pandas(asked, preserve_index=False), Path(folder, "asked.parquet"))
        frame = Path(folder, "frame.parquet")
        write_training_frame(home, master, Path(folder, "asked.parquet"), names, frame)
        return boost_file(master, frame, names, parameters)


def boost_file(master: str, frame: Path, names: Sequence[str], parameters: Parameters) -> xgb.Booster:
    """Learn the column `label` of a file from others.

    Raises
    ------
    UnavailableError
        If Spark gave up.
    """
    from xgboost.spark import SparkXGBClassifier, SparkXGBRegressor

    session, fixed = session_of(master), {"rounds", "objective", "seed"}
    given: dict[str, Any] = {name: value for name, value in parameters.items() if name not in fixed}
    given |= {"n_estimators": parameters["rounds"], "random_state": parameters.get("seed", 0), "tree_method": "hist"}
    given |= {"label_col": "label", "num_workers": session.sparkContext.defaultParallelism}
    if parameters["objective"] == "binary:logistic":
        asked = SparkXGBClassifier(features_col=list(names), **given)
    else:
        asked = SparkXGBRegressor(features_col=list(names), objective=parameters["objective"], **given)
    with plainly():
        booster: xgb.Booster = asked.fit(session.read.parquet(str(frame.resolve()))).get_booster()
    booster.feature_names = None  # as those that learn from arrays
    return booster
