"""Noise schedules, time grids, and the forward process. Knows nothing of networks.
A schedule says how much picture and noise there is at time t, `x_t = alpha(t)·x0 + sigma(t)·eps`,
with t = 0 clean and t = 1 noise, in float64. Samplers and parameterizations work with the ratio
sigma/alpha, never with differences of log-SNR, because both ends of that axis are infinite.

`level(0)` is (1, 0) for every schedule here; alpha may be exactly 0 at t = 1.
"""

from couette.schedules.continuous import (
    EDM,
    VE,
    VP,
    Flow,
    Laplace,
    LinearLogSNR,
    Trigonometric,
    laplace_log_snr,
)
from couette.schedules.derived import Shifted, ZeroTerminal
from couette.schedules.forward import (
    Posterior,
    entries,
    log_snr,
    mixed,
    posterior,
    preserving,
    ratio,
    transition,
)
from couette.schedules.grids import (
    beta,
    beta_sigmas,
    exponential,
    given,
    grid,
    karras,
    leading,
    linspace,
    polyexponential,
    strided,
    uniform,
)
from couette.schedules.mixture import Mixture
from couette.schedules.tables import (
    AlphaBars,
    Betas,
    Cosine,
    Linear,
    ScaledLinear,
    Sigmoid,
    SigmoidBetas,
    Table,
)

__all__ = [
    "EDM",
    "VE",
    "VP",
    "AlphaBars",
    "Betas",
    "Cosine",
    "Flow",
    "Laplace",
    "Linear",
    "LinearLogSNR",
    "Mixture",
    "Posterior",
    "ScaledLinear",
    "Shifted",
    "Sigmoid",
    "SigmoidBetas",
    "Table",
    "Trigonometric",
    "ZeroTerminal",
    "beta",
    "beta_sigmas",
    "entries",
    "exponential",
    "given",
    "grid",
    "karras",
    "laplace_log_snr",
    "leading",
    "linspace",
    "log_snr",
    "mixed",
    "polyexponential",
    "posterior",
    "preserving",
    "ratio",
    "strided",
    "transition",
    "uniform",
]
