"""Guidance at some noise levels only."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise
from couette.errors import InputError
from couette.guidance.classifier_free import laid_over
from couette.guidance.contrast import Contrast, Guided, Rule, Terms
from couette.registry import GUIDANCE
from couette.schedules import ratio
from couette.tensors import expand


class Interval(Rule):
    """Guided where low < sigma/alpha ≤ high; elsewhere one pass, unguided.

    Where the times differ by row, the rows outside have the better answer for both.
    """

    def __init__(self, guided: Guided, low: float, high: float) -> None:
        super().__init__(guided)
        self.low, self.high = low, high

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        if bool(self._inside(t).any()):
            return super().contrast(x, t, cond)
        p = self.alone(x, t, cond)
        return Contrast(p.x0, p.x0, 1.0, mix=p.mix)

    def revised(self, contrast: Contrast, x: Tensor, t: Tensor) -> Contrast:
        inside = expand(self._inside(t), x).bool()
        bad = torch.where(inside, contrast.bad, contrast.good)
        base = None if contrast.base is None else torch.where(inside, contrast.base, contrast.good)
        return contrast._replace(bad=bad, base=base)

    def _inside(self, t: Tensor) -> Tensor:
        noise = ratio(self.corruption.schedule.level(t))
        return (noise > self.low) & (noise <= self.high)


@GUIDANCE.register("interval")
def interval(
    denoise: Denoise,
    terms: Terms,
    *,
    low: Annotated[float, Field(ge=0)] = 0.28,
    high: Annotated[float, Field(gt=0)] = 2.9,
) -> Denoise:
    """Guidance at middling noise only: low < sigma/alpha ≤ high (Kynkäänniemi et al. 2024).

    Outside, the conditional answer in one pass. Much noise is where guidance costs variety, little
    is where it does nothing. The defaults are what the paper found for latents of ImageNet at 512
    pixels; other models have their own. When to use it:
    with a larger scale, for variety, and for speed.

    Raises:
        InputError: low is not below high.
    """
    if low >= high:
        raise InputError(f"An interval from {low:g} to {high:g} is empty; give low below high.")
    return laid_over(denoise, terms, lambda guided: Interval(guided, low, high))
