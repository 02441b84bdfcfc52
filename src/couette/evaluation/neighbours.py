"""Each picture's nearest training picture, and whether it is suspiciously near.

Distances are Euclidean, over pixels in [-1, 1]. They see a copy pixel by pixel, but not one that
was shifted or mirrored.

The rule for a copy. A plain distance would accuse every dull picture: a blurred one lies near to
all others, and a "1" nearer to its neighbours than an "8". So a picture is judged by
ratio = (distance to the nearest) / (mean distance to the 50 nearest), as in Carlini et al. 2023
("Extracting training data from diffusion models", sec. 5.1). It counts as a copy where that ratio
is below a threshold that real held-out pictures, which can't have been copied, rarely pass: the
k-th smallest among n of them, k/(n + 1) ≤ 1 %, or the smallest of all where n < 99. For pictures
from the same source the rate of false alarms is then k/(n + 1). Where the held-out pictures
themselves repeat training pictures the threshold would fall to 0, so it is never less than 0.1: ten
times nearer to one training picture than to its neighbours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from couette.data import Dataset, Progress, Splits, to_float
from couette.errors import DataError, ShapeError
from couette.tensors import permutation

AMONG = 50
FEW = 20
"""Held-out pictures; a rule made from fewer has false alarms once in twenty pictures, or more."""
RATE = 0.01
LEAST = 0.1
SEARCHED = 1_000
"""Pictures whose nearest are looked for, at most."""
_CHUNK = 2**24
_RECHECKED = 4


class Nearest(NamedTuple):
    """For each of B pictures: its nearest training picture.

    which: (B,) int64 into the training data. distance: (B,) float64, Euclidean, pixels in [-1, 1].
    ratio: (B,) float64, distance over the mean distance to the 50 nearest. among: (B, 50) int64, or
    as many as there are data: those 50, the nearest first.
    """

    which: Tensor
    distance: Tensor
    ratio: Tensor
    among: Tensor


class CopyRule(NamedTuple):
    """Below which ratio a picture counts as a copy, how often that is wrong, and how many held-out
    pictures it was made from."""

    threshold: float
    false_alarms: float
    made_from: int

    def __call__(self, found: Nearest) -> Tensor:
        """(B,) bool."""
        return found.ratio < self.threshold


def nearest(pictures: Tensor, data: Dataset, progress: Progress | None = None) -> Nearest:
    """Search all of the data, in chunks: memory does not grow with their number.

    Args:
        pictures: (B, C, H, W) float32 in [-1, 1], on the CPU.
        data: the training pictures.

    Raises:
        ShapeError: pictures of another size than the data's.
    """
    if pictures.shape[1:] != (data.channels, data.height, data.width):
        raise ShapeError(
            f"Pictures of {tuple(pictures.shape[1:])} can't be compared with data of "
            f"{(data.channels, data.height, data.width)}; use pictures of one size."
        )
    asked = pictures.flatten(1)
    among = min(AMONG, len(data))
    best = torch.empty(len(asked), 0)
    where = torch.empty(len(asked), 0, dtype=torch.int64)
    size = max(1, _CHUNK // max(asked.shape[1], len(asked)))
    for first in range(0, len(data), size):
        index = torch.arange(first, min(first + size, len(data)))
        squares = _squares(asked, _rows(data, index))
        best = torch.cat((best, squares), 1)
        where = torch.cat((where, index.expand(len(asked), -1)), 1)
        best, order = best.topk(min(among, best.shape[1]), largest=False)
        where = where.gather(1, order)
        if progress:
            progress("nearest training pictures", first + len(index), len(data))
    return _rechecked(asked, data, best, where)


def calibrate(held_out: Tensor) -> CopyRule:
    """The rule from the ratios (n,) of real held-out pictures, n at least 1."""
    count = len(held_out)
    rank = max(1, math.floor(RATE * (count + 1)))
    threshold = max(LEAST, float(held_out.sort().values[rank - 1]))
    below = int((held_out < threshold).sum())
    return CopyRule(threshold, (1 + below) / (count + 1), count)


def reserve(training: int, made_from: int) -> str:
    """What a verdict on copies rests on where that is little, in a sentence; "" where it is not.

    Args:
        training: pictures that a copy could be of.
        made_from: held-out pictures that the rule was made from.
    """
    little = []
    if training < AMONG:
        little.append(f"there are only {training} training pictures")
    if made_from < FEW:
        those = "1 held-out picture" if made_from == 1 else f"{made_from} held-out pictures"
        little.append(f"its rule was made from {those}")
    return f"This rests on little: {', and '.join(little)}." if little else ""


def rule_from(
    splits: Splits, seed: int = 0, progress: Progress | None = None
) -> tuple[CopyRule, Tensor]:
    """The rule for copies from half of the held-out pictures, of at most 2,000, and its verdicts
    (n,) on the rest.

    Raises:
        DataError: fewer than two pictures are held out.
    """
    train, test = splits
    if test is None or len(test) < 2:
        raise DataError(
            f"'{train.name}' has no pictures kept for evaluation, which a rule for copies is made "
            "from; give data of more pictures, or a run that was trained with --data.holdout 0.1."
        )
    index = permutation(seed, 0, len(test))[: 2 * SEARCHED]
    found = nearest(to_float(test.pictures(index)), train, progress)
    half = len(index) // 2
    rule = calibrate(found.ratio[:half])
    return rule, rule(Nearest(*(part[half:] for part in found)))


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, (N, M), as |a|² + |b|² − 2·a·b."""
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    return torch.addmm(lengths, a, b.T, alpha=-2).clamp_(min=0)


def _rechecked(asked: Tensor, data: Dataset, squares: Tensor, where: Tensor) -> Nearest:
    """The nearest by differences: the expanded square loses small distances to rounding, and those
    are what copies are known by."""
    few = min(_RECHECKED, where.shape[1])
    exact = torch.stack(
        [
            (asked - _rows(data, where[:, place])).double().square().sum(1).sqrt()
            for place in range(few)
        ],
        1,
    )
    exact, place = exact.sort(stable=True, dim=1)
    where = torch.cat((where[:, :few].gather(1, place), where[:, few:]), 1)
    mean = torch.cat((exact, squares[:, few:].double().sqrt()), 1).mean(1)
    distance = exact[:, 0]
    ratio = torch.where(mean > 0, distance / mean.clamp_min(1e-30), torch.zeros_like(mean))
    return Nearest(where[:, 0], distance, ratio, where)


def _rows(data: Dataset, index: Tensor) -> Tensor:
    return to_float(data.pictures(index)).flatten(1)
