"""Import XGBoost without scikit-learn, which it loads where it is and can do without: a second, and 90 MB.

Not where trees are grown on Spark: its part of XGBoost is made of scikit-learn's classes.
"""

import sys
from typing import Final

ABSENT: Final = "sklearn"

if not {"xgboost", ABSENT} & sys.modules.keys():
    sys.modules[ABSENT] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import xgboost  # noqa: F401
    finally:
        del sys.modules[ABSENT]
