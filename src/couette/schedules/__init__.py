"""Noise schedules, time grids, and the forward process. Knows nothing of networks.

A schedule says how much picture and noise there is at time t, `x_t = alpha(t)·x0 + sigma(t)·eps`,
with t = 0 clean and t = 1 noise, in float64. Samplers and parameterizations work with the ratio
sigma/alpha, never with differences of log-SNR, because both ends of that axis are infinite.

`level(0)` is (1, 0) for every schedule here.
"""

from couette.schedules.continuous import EDM, Flow
from couette.schedules.forward import entries, log_snr, mixed, ratio, transition
from couette.schedules.grids import karras, strided, uniform
from couette.schedules.mixture import Mixture
from couette.schedules.tables import Cosine, Linear, Table

__all__ = [
    "EDM",
    "Cosine",
    "Flow",
    "Linear",
    "Mixture",
    "Table",
    "entries",
    "karras",
    "log_snr",
    "mixed",
    "ratio",
    "strided",
    "transition",
    "uniform",
]
