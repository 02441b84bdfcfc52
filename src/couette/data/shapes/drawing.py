"""From scenes to pixels: the same bytes for the same scene, at any resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from couette.data.shapes.outlines import OUTLINES, Distance
from couette.data.shapes.scenes import Scene, Thing, check
from couette.data.shapes.vocabulary import BACKGROUNDS, COLORS, SIZES
from couette.errors import ConfigError

LEAST, MOST = 16, 256
_REACH = 1.25
"""More than any outline reaches from its centre, in sizes."""
_AT_ONCE = 1 << 16
"""Pixels of one shape that are worked on at a time."""

Floats = NDArray[np.float32]


def draw(scenes: Sequence[Scene], resolution: int = 32) -> Tensor:
    """Draw scenes.

    An edge pixel is mixed by how far the outline is from its centre, within half a pixel.

    Args:
        scenes: what to draw, N of them.
        resolution: the side in pixels, 16 to 256.

    Returns:
        uint8 (N, resolution, resolution, 3).

    Raises:
        ConfigError: a resolution out of range, or a scene that reaches beyond its picture.
        UnknownName: a word that the vocabulary has not got.
    """
    check_resolution(resolution)
    check(scenes)
    paper = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32)
    canvas = np.empty((len(scenes), resolution, resolution, 3), np.float32)
    canvas[:] = paper.reshape(-1, 1, 1, 3)
    layers: dict[tuple[int, str], list[tuple[int, Thing]]] = {}
    for row, scene in enumerate(scenes):
        for layer, thing in enumerate(scene.things):
            layers.setdefault((layer, thing.shape), []).append((row, thing))
    for (_, shape), chosen in layers.items():
        _paint(canvas, shape, chosen)
    return torch.from_numpy(np.rint(canvas).astype(np.uint8))


def check_resolution(resolution: int) -> None:
    """Refuse a side that is not in 16..256."""
    if not LEAST <= resolution <= MOST:
        raise ConfigError(
            f"Scenes are drawn at {LEAST} to {MOST} pixels, not {resolution}; give a resolution "
            "within these, for instance 32."
        )


def coverage(
    distance: Distance, centers: Floats, radii: Floats, corners: NDArray[np.int64], side: int
) -> Floats:
    """How much of each pixel a figure covers, in [0, 1], on patches of `side` pixels.

    Args:
        distance: its signed distance, in sizes.
        centers: (M, 2) of x and y, in pixels from the picture's corner.
        radii: (M,), the sizes in pixels.
        corners: (M, 2), the pixel (x, y) at which each patch begins.

    Returns:
        (M, side, side), rows first.
    """
    ticks = np.arange(side, dtype=np.float32) + np.float32(0.5)
    unit = radii[:, None].astype(np.float32)
    x = (corners[:, :1] + ticks - centers[:, :1]).astype(np.float32) / unit
    y = (corners[:, 1:] + ticks - centers[:, 1:]).astype(np.float32) / unit
    wide = (len(radii), side, side)
    away = distance(np.broadcast_to(x[:, None, :], wide), np.broadcast_to(y[:, :, None], wide))
    covered: Floats = np.clip(np.float32(0.5) - away * unit[:, :, None], 0, 1)
    return covered


def _paint(canvas: Floats, shape: str, chosen: list[tuple[int, Thing]]) -> None:
    """Lay one object each on some of the pictures of `canvas`, given by their rows, in place."""
    resolution = canvas.shape[1]
    largest = max(SIZES[thing.size] for _, thing in chosen)
    side = min(2 * math.ceil(_REACH * largest * resolution + 1) + 1, resolution)
    ticks = np.arange(side)
    for start in range(0, len(chosen), step := max(1, _AT_ONCE // side**2)):
        part = chosen[start : start + step]
        rows = np.array([row for row, _ in part])
        colors = np.array([COLORS[t.color] for _, t in part], np.float32)
        radii = np.array([SIZES[t.size] for _, t in part], np.float32) * np.float32(resolution)
        centers = np.array([(t.x, t.y) for _, t in part], np.float32) * np.float32(resolution)
        corners = np.clip(np.floor(centers).astype(np.int64) - side // 2, 0, resolution - side)
        across, down = corners[:, :1] + ticks, corners[:, 1:] + ticks
        at = rows[:, None, None], down[:, :, None], across[:, None, :]
        covered = coverage(OUTLINES[shape].distance, centers, radii, corners, side)[..., None]
        below = canvas[at]
        canvas[at] = below + covered * (colors[:, None, None] - below)
