"""Fit and predict with the package lifetimes: reads history.npy of a folder, writes purchases.npy and seconds.npy."""

import sys
import time
from pathlib import Path

import numpy as np
from lifetimes import BetaGeoFitter

folder = Path(sys.argv[1])
frequency, recency, age = np.load(folder / "history.npy").T
start = time.perf_counter()
fitter = BetaGeoFitter()
fitter.fit(frequency, recency, age)
expected = fitter.conditional_expected_number_of_purchases_up_to_time(273, frequency, recency, age)
np.save(folder / "purchases.npy", np.asarray(expected, dtype=np.float64))
np.save(folder / "seconds.npy", time.perf_counter() - start)
