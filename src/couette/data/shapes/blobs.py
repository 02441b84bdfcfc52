"""What stands out from a picture's background, part by part, each brought to one size and place.

Pictures are float32 (B, H, W, 3) in 0..255 here; lengths are in pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

GRID = 21
"""The side of the raster that each part is brought to."""
REACH = 2.5
"""How far that raster reaches from the centre of mass, in radii of gyration."""
STANDS_OUT = 26.0, 42.0
"""How far a pixel, smoothed, must be from the background, in RGB: twice the noise, within these."""
OF_PEAK = 0.45
"""And how far compared with the furthest pixel nearby: a little less than half way up an edge."""
SPECK = 0.006
"""Parts that cover less of the picture than this are dust; the smallest object covers 0.028."""


class Blobs(NamedTuple):
    """M parts of pictures.

    picture: (M,), the row of each one's picture. x, y: (M,), its centre of mass, in pixels from the
    picture's corner. gyration: (M,), the root mean square distance from there. patch: (M, GRID,
    GRID, 3), how it differs from the background, REACH times its gyration around.
    """

    picture: Whole
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    gyration: NDArray[np.float64]
    patch: Floats


def paper_of(pictures: Floats) -> tuple[Floats, Floats]:
    """The colour of the background and the noise in it, (B, 3) and (B,), from the outer pixels."""
    ring = np.concatenate(
        (pictures[:, 0], pictures[:, -1], pictures[:, 1:-1, 0], pictures[:, 1:-1, -1]), axis=1
    )
    middle = np.median(ring, axis=1)
    spread = 1.4826 * np.median(np.abs(ring - middle[:, None]), axis=(1, 2))
    return middle, spread


def blobs_of(pictures: Floats, paper: Floats, noise: Floats) -> Blobs:
    """The parts of pictures that differ from their background (B, 3) by more than noise (B,)."""
    away = pictures - paper[:, None, None]
    labels, count = _parted(away, np.clip(2 * noise, *STANDS_OUT)[:, None, None])
    rows, down, across = np.nonzero(labels)
    of = labels[rows, down, across] - 1
    # Pixels weigh by how far they lie from the background in the direction of the whole part.
    differs = away[rows, down, across].astype(np.float64)
    total = np.stack([np.bincount(of, differs[:, c], count) for c in range(3)], 1)
    towards = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    weight = (differs * towards[of]).sum(1)
    mass = np.maximum(np.bincount(of, weight, count), 1e-9)
    side = away.shape[1]

    def mean(values: NDArray[Any], least: float, most: float) -> NDArray[Any]:
        return np.clip(np.bincount(of, weight * values, count) / mass, least, most)

    x, y = mean(across + 0.5, 0, side), mean(down + 0.5, 0, side)
    square = (across + 0.5 - x[of]) ** 2 + (down + 0.5 - y[of]) ** 2
    gyration = np.sqrt(mean(square, 0.25, side**2))
    picture = np.zeros(count, np.int64)
    picture[of] = rows
    return _sampled(away, labels, Blobs(picture, x, y, gyration, np.empty(0, np.float32)))


def _parted(away: Floats, least: Floats) -> tuple[NDArray[np.int32], int]:
    """Which part each pixel belongs to, (B, H, W), from 1; 0 is background. And how many."""
    from scipy import ndimage

    side = away.shape[1]
    smooth = away
    for axis in (1, 2):
        smooth = ndimage.correlate1d(smooth, (0.25, 0.5, 0.25), axis=axis, mode="nearest")
    far = np.sqrt(np.square(smooth).sum(3))
    reach = 2 * round(side / 16) + 1
    peak = ndimage.maximum_filter(far, size=(1, reach, reach), mode="nearest")
    stands = (far > least) & (far > OF_PEAK * peak)
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True
    labels, count = ndimage.label(stands, touching)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    kept = sizes >= SPECK * side * side
    kept[0] = False
    numbers = np.cumsum(kept) * kept
    labels = numbers[labels].astype(np.int32)
    grow = 2 * max(1, round(side / 32)) + 1
    wider = ndimage.maximum_filter(labels, size=(1, grow, grow), mode="nearest")
    return np.where(labels > 0, labels, wider), int(kept.sum())


def _sampled(away: Floats, labels: NDArray[np.int32], blobs: Blobs) -> Blobs:
    """With their patches: bilinear samples, where pixels of other parts count as background."""
    ticks = np.linspace(-REACH, REACH, GRID) * blobs.gyration[:, None]
    x, y = (center[:, None] + ticks - 0.5 for center in (blobs.x, blobs.y))
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share = (x - left).astype(np.float32)[:, None, :, None]
    low_share = (y - top).astype(np.float32)[:, :, None, None]
    rows = blobs.picture[:, None, None]
    number = np.arange(1, len(rows) + 1)[:, None, None]
    side = away.shape[1]
    patch = np.zeros((len(rows), GRID, GRID, 3), np.float32)
    for lower in (0, 1):
        for further in (0, 1):
            down, across = (top + lower)[:, :, None], (left + further)[:, None, :]
            inside = (down >= 0) & (down < side) & (across >= 0) & (across < side)
            at = rows, down.clip(0, side - 1), across.clip(0, side - 1)
            own = (inside & (labels[at] == number))[..., None]
            share = (low_share if lower else 1 - low_share) * (
                right_share if further else 1 - right_share
            )
            patch += np.where(own, away[at], 0) * share
    return blobs._replace(patch=patch)
