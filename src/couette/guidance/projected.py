"""Guidance without the part that only saturates: adaptive projected guidance."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Denoise
from couette.guidance.classifier_free import laid_over
from couette.guidance.contrast import Contrast, Guided, Rule, Terms
from couette.registry import GUIDANCE


class Projected(Rule):
    """x0_c + (scale − 1)·(d⊥ + eta·d∥) for a bounded, damped difference d = x0_c − x0_u.

    It keeps the running difference, so one object serves one run.
    """

    def __init__(self, guided: Guided, momentum: float, norm: float | None, eta: float) -> None:
        super().__init__(guided)
        self.momentum, self.norm, self.eta = momentum, norm, eta
        self._running: Tensor | None = None

    def revised(self, contrast: Contrast, x: Tensor, t: Tensor) -> Contrast:
        change = contrast.good - contrast.bad
        if self._running is not None:
            change = change + self.momentum * self._running
        self._running = change
        if self.norm is not None:
            change = change * (self.norm / length(change)).clamp(max=1)
        along = parallel(change, contrast.good)
        return contrast._replace(bad=contrast.good - (change - along + self.eta * along))


def length(x: Tensor) -> Tensor:
    """The Euclidean norm of each picture, (B, 1, 1, 1)."""
    return x.square().sum(tuple(range(1, x.ndim)), keepdim=True).sqrt()


def parallel(change: Tensor, picture: Tensor) -> Tensor:
    """The part of each change that lies along its picture."""
    tiny = torch.finfo(picture.dtype).tiny
    unit = picture / length(picture).clamp(min=tiny)
    return (change * unit).sum(tuple(range(1, unit.ndim)), keepdim=True) * unit


@GUIDANCE.register("apg")
def apg(
    denoise: Denoise,
    terms: Terms,
    *,
    momentum: Annotated[float, Field(gt=-1, lt=1)] = -0.5,
    norm: Annotated[float, Field(gt=0)] | None = None,
    eta: Annotated[float, Field(ge=0)] = 0.0,
) -> Denoise:
    """Adaptive projected guidance: strong, without oversaturation (Sadat et al. 2024, alg. 1).

    The difference x0_c − x0_u is averaged over the run with `momentum` (negative: against its own
    past), its norm limited to `norm` (none without one; it grows with the number of pixels), and
    the part of it along x0_c, which saturates, weighted by `eta`. momentum 0, no norm and eta 1 is
    cfg. When to use it: for large scales.
    """
    return laid_over(denoise, terms, lambda guided: Projected(guided, momentum, norm, eta))
