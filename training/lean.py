"""XGBoost without scikit-learn, which it imports where it is and can do without: a second, and 90 MB."""

import sys
from typing import Final

ABSENT: Final = "sklearn"


def import_xgboost() -> None:
    """Import it so; not where trees are grown on Spark, whose part of XGBoost is made of scikit-learn's classes."""
    if "xgboost" in sys.modules or ABSENT in sys.modules:
        return
    sys.modules[ABSENT] = None  # type: ignore[assignment]  # an import of it fails
    try:
        import xgboost  # noqa: F401 (whoever needs it finds it)
    finally:
        del sys.modules[ABSENT]
