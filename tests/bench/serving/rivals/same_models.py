"""The release's three boosters as an MLflow model, for `mlflow models serve`: features come with the request."""

import mlflow
import xgboost as xgb


class SameModels(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.boosters = {}
        for name in ("churn", "value", "uplift"):
            self.boosters[name] = xgb.Booster({"nthread": 1})
            self.boosters[name].load_model(context.artifacts[name])

    def predict(self, context, model_input, params=None):  # noqa: ARG002 (MLflow's signature)
        rows = model_input.astype("float32")  # a column of nulls comes as objects
        return {name: booster.inplace_predict(rows).tolist() for name, booster in self.boosters.items()}


mlflow.models.set_model(SameModels())
