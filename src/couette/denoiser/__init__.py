"""From a network to a denoiser, and what its errors cost.

A parameterization is the affine map x0 = skip·x + out·net(inp·x, told, cond). The network's target
falls out of it as (x0 − skip·x)/out, so one loss serves all. Knows nothing of training loops,
samplers or guidance.

parameterizations.py  what the network's output means · told.py  what it is told of the time
losses.py             how far an output lies from its target · weightings.py  by level
uncertainty.py        the loss's size at each level, learned
variational.py        the variational bound, term by term
classifier.py         what a classifier of noised pictures says
times.py              how training draws its times
recall.py             self-conditioning at sampling · reuse.py  features shared by evaluations
build.py              the Denoiser
"""

from couette.denoiser import losses, times, told, weightings
from couette.denoiser.build import (
    Denoiser,
    build_corruption,
    build_denoiser,
    restored,
    target,
    unread,
)
from couette.denoiser.classifier import NoisyClassifier
from couette.denoiser.parameterizations import edm, eps, flow, regular, score, singular, v, x0
from couette.denoiser.recall import recalling
from couette.denoiser.reuse import Reusing
from couette.denoiser.uncertainty import LogVariance
from couette.denoiser.variational import bound_term

__all__ = [
    "Denoiser",
    "LogVariance",
    "NoisyClassifier",
    "Reusing",
    "bound_term",
    "build_corruption",
    "build_denoiser",
    "edm",
    "eps",
    "flow",
    "losses",
    "recalling",
    "regular",
    "restored",
    "score",
    "singular",
    "target",
    "unread",
    "times",
    "told",
    "v",
    "weightings",
    "x0",
]
