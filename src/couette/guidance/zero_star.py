"""Guidance from the best multiple of the unconditional velocity, and a still start."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise
from couette.guidance.classifier_free import laid_over
from couette.guidance.contrast import Contrast, Guided, Rule, Terms
from couette.registry import GUIDANCE
from couette.tensors import expand


class ZeroStar(Rule):
    """The worse velocity times s = ⟨v_c, v_u⟩/‖v_u‖², and no velocity at the first times.

    Any corruption is a flow in z = x/(alpha + sigma), where v = (z − x0)·(alpha + sigma)/sigma;
    the factor cancels in s. It counts the times it was asked at, so one object serves one run.
    """

    def __init__(self, guided: Guided, still: int) -> None:
        super().__init__(guided)
        self.still = still
        self._first: list[float] = []

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        if self._starting(float(t.max())):
            z = self._straightened(x, t)
            return Contrast(z, z, 1.0)
        return super().contrast(x, t, cond)

    def revised(self, contrast: Contrast, x: Tensor, t: Tensor) -> Contrast:
        z = self._straightened(x, t)
        given, nothing = z - contrast.good, z - contrast.bad
        axes = tuple(range(1, x.ndim))
        power = nothing.square().sum(axes, keepdim=True)
        best = (given * nothing).sum(axes, keepdim=True) / (power + 1e-8)
        return contrast._replace(bad=z - best * nothing)

    def _straightened(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.corruption.schedule.level(t)
        return x / expand(level.alpha + level.sigma, x)

    def _starting(self, t: float) -> bool:
        """Whether t is among the first few different times."""
        if t not in self._first and len(self._first) < self.still:
            self._first.append(t)
        return t in self._first


@GUIDANCE.register("cfg-zero")
def cfg_zero(denoise: Denoise, terms: Terms, *, still: Annotated[int, Field(ge=0)] = 1) -> Denoise:
    """CFG-zero*: the unconditional velocity at its best scale, a still start (Fan et al. 2025).

    v = s·v_u + scale·(v_c − s·v_u), s = ⟨v_c, v_u⟩/‖v_u‖² of each picture, and v = 0
    at the first `still` times that the model is asked at (a step of heun asks at two), where a
    model of a flow knows less than nothing. When to
    use it: on flow models, trained for a short time above all.
    """
    return laid_over(denoise, terms, lambda guided: ZeroStar(guided, still))
