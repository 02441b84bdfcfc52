"""What guidance is made of: two answers for x0, and a way beyond the better one.

A *source* evaluates the two: told and untold, a good model and a worse one. A *rule* changes what
is made of them. Both are denoisers, so they are laid over one another in any order, and the
network runs no more often for it. Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Prediction
from couette.errors import InputError

Classify = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> log p(y | x_t) of K classes, (B, K)."""


class Contrast(NamedTuple):
    """Two answers for x0, (B, C, H, W), and how far to go from one through the other.

    x0 = bad + scale·(good − bad): 0 is the worse answer, 1 the better one, more lies beyond it.

    base: the x0 whose eps drives the move, where that is not the guided one.
    mix: the better answer's learned variance, where it has one.
    """

    good: Tensor
    bad: Tensor
    scale: float
    base: Tensor | None = None
    mix: Tensor | None = None

    @property
    def prediction(self) -> Prediction:
        return Prediction(torch.lerp(self.bad, self.good, self.scale), self.base, self.mix)


class Guided(ABC):
    """A denoiser whose answer is a contrast of two."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    @abstractmethod
    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        """Both answers for x (B, C, H, W) at the time t, 0-d or (B,)."""

    def alone(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """The answer without guidance, in one pass."""
        return self.denoise(x, t, cond)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return self.contrast(x, t, cond).prediction


class Rule(Guided):
    """A guided denoiser with another rule for what is made of its two answers."""

    def __init__(self, guided: Guided) -> None:
        super().__init__(guided)
        self.guided = guided

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        return self.revised(self.guided.contrast(x, t, cond), x, t)

    def alone(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return self.guided.alone(x, t, cond)

    @abstractmethod
    def revised(self, contrast: Contrast, x: Tensor, t: Tensor) -> Contrast:
        """The contrast in place of the given one."""


def unopened(path: str) -> NoReturn:
    """Where no models are at hand.

    Raises:
        InputError: always.
    """
    raise InputError(f"There is nothing here to open {path} with; draw with couette.sample.")


@dataclass(frozen=True)
class Terms:
    """What every method of guidance is given.

    Attributes:
        scale: of the guidance. The pictures are drawn from p(x)·p(y | x)^scale, as far as that
            goes: 0 is the unconditional answer, 1 the conditional one.
        unconditional: what the network is told where nothing is asked, a row for each picture;
            empty where it is told nothing, None where it never learned to do without.
        denoiser: opens the model at a path as a denoiser of the same pictures.
        classifier: opens a classifier of the same noised pictures.
    """

    scale: float
    unconditional: Cond | None
    denoiser: Callable[[str], Denoise] = unopened
    classifier: Callable[[str], Classify] = unopened

    @property
    def labelled(self) -> bool:
        """Whether the network is told a label."""
        return self.unconditional is None or "label" in self.unconditional


def twice(
    denoise: Denoise, x: Tensor, t: Tensor, first: Cond, second: Cond
) -> tuple[Prediction, Prediction]:
    """Two answers for the same x, told `first` and `second`, from one batch of 2·B rows.

    What `second` does not say is told as in `first`.
    """
    both = {key: torch.cat((first[key], second.get(key, first[key]))) for key in first}
    p = denoise(torch.cat((x, x)), t.repeat(2) if t.ndim else t, both)
    parts = [(None, None) if part is None else part.chunk(2) for part in p]
    one, other = zip(*parts, strict=True)
    return Prediction(*one), Prediction(*other)


class Parted:
    """A denoiser that takes at most `rows` pictures at once: passes one after the other.

    Laid under guidance it halves its memory, and costs the speed of the larger batch.
    """

    def __init__(self, denoise: Denoise, rows: int) -> None:
        self.denoise, self.rows = denoise, rows

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        starts = range(0, len(x), self.rows)
        found = [self._part(slice(i, i + self.rows), x, t, cond) for i in starts]
        x0, base, mix = (
            None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True)
        )
        assert x0 is not None  # every prediction has one
        return Prediction(x0, base, mix)

    def _part(self, rows: slice, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        told = {key: value[rows] for key, value in cond.items()}
        return self.denoise(x[rows], t[rows] if t.ndim else t, told)
