"""Draws as a function of integers: what a scene or a caption is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TypeVar

import torch

from couette.tensors import bits

T = TypeVar("T")


class Draws(IntEnum):
    """What a draw is for. Prompts count upward from theirs by kind, captions by wording."""

    SCENE = 0
    PROMPT = 1 << 4
    CAPTION = 1 << 8


class Dice:
    """One row of random 32-bit integers, used one after the other."""

    def __init__(self, words: Iterable[int]) -> None:
        self._words = iter(words)

    def unit(self) -> float:
        """A number in [0, 1)."""
        return next(self._words) * 2.0**-32

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.unit() < share

    def pick(self, choices: Sequence[T]) -> T:
        return choices[next(self._words) * len(choices) >> 32]

    def weighed(self, shares: Sequence[tuple[T, float]]) -> T:
        """One of the choices, each in its share of cases; shares sum to 1."""
        left = self.unit()
        for choice, share in shares:
            left -= share
            if left < 0:
                return choice
        return shares[-1][0]


def dice(seed: int, indices: range, split: int, stream: int, count: int) -> Iterator[Dice]:
    """Dice of `count` words for each index; those of one index do not depend on the others."""
    keys = torch.stack(
        (torch.arange(indices.start, indices.stop), torch.full((len(indices),), split)), 1
    )
    for row in bits(seed, keys, stream, count).tolist():
        yield Dice(row)
