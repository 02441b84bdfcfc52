"""Which pictures are used and which are kept for evaluation: fixed, whatever the run's seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from couette.tensors import permutation

Rows = NDArray[np.int64]

_SEED = 0xC0E77E
_LIMIT, _HOLDOUT = 0, 1


def limited(count: int, limit: int | None) -> Rows:
    """The rows kept of `count`: the first `limit` of a fixed random order, in rising order."""
    if limit is None or limit >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(_order(_LIMIT, count)[:limit])


def hold_out(count: int, labels: NDArray[Any] | None, share: float) -> tuple[Rows, Rows]:
    """Split `count` rows into those to train on and those kept for evaluation, each rising.

    With labels the share is taken of each class (largest remainders). At least one picture is kept
    for evaluation where that leaves two to train on; a class never loses its only picture.

    Args:
        count: how many pictures there are.
        labels: (count,) class indices, or None.
        share: the part to keep for evaluation, in [0, 1); 0 keeps none.
    """
    everything = np.arange(count, dtype=np.int64)
    kinds = np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64)
    sizes = np.bincount(kinds)
    room = np.clip(sizes - 1, 0, None)
    total = min(max(round(count * share), 1), count - 2, int(room.sum())) if share else 0
    if total < 1:
        return everything, everything[:0]
    order = _order(_HOLDOUT, count)
    by_class = order[np.argsort(kinds[order], kind="stable")]
    first = np.cumsum(sizes) - sizes
    rank = everything - first[kinds[by_class]]
    held = np.sort(by_class[rank < _quotas(sizes, room, total)[kinds[by_class]]])
    return np.setdiff1d(everything, held, assume_unique=True), held


def _quotas(sizes: Rows, room: Rows, total: int) -> Rows:
    """How many of each class are held out, `total` in all, none above its room."""
    exact = sizes * (total / sizes.sum())
    quota: Rows = np.minimum(np.floor(exact).astype(np.int64), room)
    while (short := total - int(quota.sum())) > 0:
        open_ = np.flatnonzero(quota < room)
        best = open_[np.argsort(quota[open_] - exact[open_], kind="stable")]
        quota[best[:short]] += 1
    return quota


def _order(purpose: int, count: int) -> Rows:
    order: Rows = permutation(_SEED, purpose, count).numpy()
    return order
