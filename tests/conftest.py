"""What every test runs under: one clock, threads that wait without spinning, telemetry off, all before any import."""

import os
import time

os.environ.update(
    {
        "TZ": "UTC",
        "OMP_WAIT_POLICY": "passive",
        "BENTOML_DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "ITERATIVE_DO_NOT_TRACK": "1",
    }
)
time.tzset()
