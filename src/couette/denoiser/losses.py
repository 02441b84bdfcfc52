"""How far an output lies from its target: one number per sample, before it is weighted."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from couette.registry import LOSSES
from couette.tensors import mean_flat

Positive = Annotated[float, Field(gt=0)]


@LOSSES.register("mse")
def mse(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error.

    ‖d‖²/n of the n differences d (Ho et al. 2020, eq. 14). When to use it: first: its best answer
    is the mean, which samplers need.
    """
    return mean_flat((output - target).square())


@LOSSES.register("pseudo-huber")
def pseudo_huber(output: Tensor, target: Tensor, *, c: Positive = 0.00054) -> Tensor:
    """√(‖d‖² + c²·n) − c·√n of the n differences d: outliers count less (Song & Dhariwal 2024).

    Squared where the distance is far below c·√n, the distance itself far above. Their c is
    0.00054·√n. When to use it: where outliers rule the squared error, as in consistency training.
    """
    difference = (output - target).flatten(1)
    edge = c * math.sqrt(difference.shape[1])
    return (difference.square().sum(1) + edge**2).sqrt() - edge
