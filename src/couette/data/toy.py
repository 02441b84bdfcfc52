"""Points in the plane whose clouds have shapes: a drop of dye, seen as its particles.

Each set has 20,000 points, drawn from fixed seeds: the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from couette.config import DataConfig
from couette.data.dataset import Dataset, Progress, Splits, splits
from couette.data.splitting import hold_out, limited
from couette.errors import ConfigError, DataError
from couette.registry import DATASETS
from couette.tensors import bits, normal

COUNT = 20_000
GRID_SIDE = 5
GRID_SD = 0.05
GRID_SPACING = math.sqrt((1 - GRID_SD**2) / 2)
"""With means at -2..2 times this, each coordinate of `gaussians` has mean 0 and variance 1."""

_SEED = 0xD1E


POINTS = frozenset({"moons", "swiss-roll", "gaussians"})
"""The names of the sets that hold points in the plane."""


@DATASETS.register("moons")
def moons(config: DataConfig, progress: Progress | None = None) -> Splits:
    """Two half moons of points, interleaved: two classes.

    scikit-learn's `make_moons` with noise 0.05, each coordinate shifted and scaled to mean 0 and
    variance 1 over the set.
    """
    from sklearn.datasets import make_moons

    points, labels = make_moons(COUNT, noise=0.05, random_state=_SEED)
    return _open("moons", _standard(points), labels, ("upper", "lower"), config)


@DATASETS.register("swiss-roll")
def swiss_roll(config: DataConfig, progress: Progress | None = None) -> Splits:
    """A spiral of points.

    The first and last coordinates of scikit-learn's `make_swiss_roll` with noise 0.3, each shifted
    and scaled to mean 0 and variance 1 over the set.
    """
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(COUNT, noise=0.3, random_state=_SEED)
    return _open("swiss-roll", _standard(points[:, [0, 2]]), None, (), config)


@DATASETS.register("gaussians")
def gaussians(config: DataConfig, progress: Progress | None = None) -> Splits:
    """A 5 × 5 grid of Gaussian clouds of points: 25 classes, numbered row by row.

    The density is known: equal weights, standard deviation 0.05, means at −2, −1, 0, 1, 2 times
    sqrt((1 − 0.05²)/2) in each coordinate, so that its mean is 0 and its variance 1 exactly.
    """
    keys = torch.stack((torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64)), 1)
    labels = bits(_SEED, keys, 0, 1)[:, 0] % GRID_SIDE**2
    cells = torch.stack((labels % GRID_SIDE, labels // GRID_SIDE), 1) - GRID_SIDE // 2
    points = GRID_SPACING * cells + GRID_SD * normal(_SEED, keys, 1, (2,))
    classes = tuple(str(number) for number in range(GRID_SIDE**2))
    return _open("gaussians", points.numpy(), labels.numpy(), classes, config)


def _standard(points: NDArray[np.float64]) -> NDArray[np.float64]:
    standard: NDArray[np.float64] = (points - points.mean(0)) / points.std(0)
    return standard


def _open(
    name: str,
    points: NDArray[np.floating],
    labels: NDArray[np.int64] | None,
    classes: tuple[str, ...],
    config: DataConfig,
) -> Splits:
    if config.size or config.flip or config.crop or config.color != "auto":
        raise ConfigError(
            f"'{name}' is made of points: it has no resolution, color, flip or crop; leave them."
        )
    rows = limited(COUNT, config.limit)
    if len(rows) < 2:
        raise DataError(f"A limit of {len(rows)} leaves too few points; two are needed.")
    kept, held = hold_out(len(rows), None if labels is None else labels[rows], config.holdout)

    def part(chosen: NDArray[np.int64]) -> Dataset:
        return Dataset(
            name,
            torch.from_numpy(points[chosen].astype(np.float32)).reshape(-1, 2, 1, 1),
            labels=None if labels is None else torch.from_numpy(labels[chosen].astype(np.int64)),
            classes=classes,
        )

    return splits(part(rows[kept]), part(rows[held]) if len(held) else None, [])
