"""From a network to a denoiser: parameterizations, what the network is told, loss weightings.

A parameterization is the affine map x0 = skip·x + out·net(inp·x, told, cond). The network's target
falls out of it as (x0 − skip·x)/out, so one loss serves all. Knows nothing of training loops,
samplers or guidance.
"""

from couette.denoiser import times, told, weightings
from couette.denoiser.build import Denoiser, build_corruption, build_denoiser, target
from couette.denoiser.classifier import NoisyClassifier
from couette.denoiser.parameterizations import edm, eps, flow, v, x0

__all__ = [
    "Denoiser",
    "NoisyClassifier",
    "build_corruption",
    "build_denoiser",
    "edm",
    "eps",
    "flow",
    "target",
    "times",
    "told",
    "v",
    "weightings",
    "x0",
]
