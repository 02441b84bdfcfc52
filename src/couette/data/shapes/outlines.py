"""The shapes as signed distances to their outlines: negative inside, in units of the size.

Coordinates are relative to the centre of mass, x to the right and y down. All shapes stand upright
and are symmetric left and right, so half an outline says all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Distance = Callable[[Array, Array], Array]


class Outline(NamedTuple):
    """A shape: its signed distance, and how far it reaches from its centre of mass."""

    distance: Distance
    across: float
    up: float
    down: float


def _circle(radius: float, stroke: float | None = None) -> Outline:
    """A disc; with a stroke only a band of that width, `radius` being its outer edge."""

    def distance(x: Array, y: Array) -> Array:
        away: Array = np.hypot(x, y) - np.float32(radius)
        if stroke is not None:
            away = np.abs(away + np.float32(stroke / 2)) - np.float32(stroke / 2)
        return away

    return Outline(distance, radius, radius, radius)


def _polygon(half: Sequence[tuple[float, float]]) -> Outline:
    """The outline through the points of its right half, from the top of the axis to its bottom."""
    points = np.asarray(half, np.float32)

    def distance(x: Array, y: Array) -> Array:
        x = np.abs(x)
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in pairwise(points):
            ex, ey = bx - ax, by - ay
            dx, dy = x - ax, y - ay
            along = np.clip((dx * ex + dy * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (dx - along * ex) ** 2 + (dy - along * ey) ** 2)
            if ey:  # a ray to the right crosses this edge
                inside ^= ((y >= ay) != (y >= by)) & (dx < dy * (ex / ey))
        away: Array = np.sqrt(nearest)
        return np.where(inside, -away, away)

    return Outline(distance, *_reach(points))


def _reach(points: NDArray[Any]) -> tuple[float, float, float]:
    return float(points[:, 0].max()), float(-points[:, 1].min()), float(points[:, 1].max())


def _star(outer: float, inner: float) -> Outline:
    turns = np.arange(6) * (math.pi / 5)
    radii = np.where(np.arange(6) % 2 == 0, outer, inner)
    return _polygon(list(zip(radii * np.sin(turns), -radii * np.cos(turns), strict=True)))


def _cross(reach: float, bar: float) -> Outline:
    """Two bars of half-width `bar`."""
    arm = [(0, -reach), (bar, -reach), (bar, -bar), (reach, -bar)]
    return _polygon([*arm, *((x, -y) for x, y in reversed(arm))])


def _heart(scale: float) -> Outline:
    """Two round lobes on a square that stands on its corner; its centre of mass is 0.6567 up."""
    rise = 0.6567

    def distance(x: Array, y: Array) -> Array:
        x, y = np.abs(x / np.float32(scale)), np.float32(rise) - y / np.float32(scale)
        lobe = np.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
        on_side = 0.5 * np.maximum(x + y, 0)
        side = np.minimum(np.hypot(x, y - 1), np.hypot(x - on_side, y - on_side))
        away: Array = np.where(x + y > 1, lobe, side * np.sign(x - y)) * np.float32(scale)
        return away

    top = 0.75 + math.sqrt(2) / 4 - rise
    return Outline(distance, (0.25 + math.sqrt(2) / 4) * scale, top * scale, rise * scale)


_SQUARE = 0.84
_TRIANGLE = 1.05 / math.sin(math.pi / 3)
"""From the centre of mass to a corner; half a side is 1.05."""

OUTLINES: dict[str, Outline] = {
    "circle": _circle(0.95),
    "square": _polygon([(0, -_SQUARE), (_SQUARE, -_SQUARE), (_SQUARE, _SQUARE), (0, _SQUARE)]),
    "triangle": _polygon([(0, -_TRIANGLE), (1.05, _TRIANGLE / 2), (0, _TRIANGLE / 2)]),
    "star": _star(1.1, 0.5),
    "cross": _cross(0.95, 0.32),
    "ring": _circle(1.0, 0.42),
    "heart": _heart(1.7),
    "diamond": _polygon([(0, -1.05), (1.05, 0), (0, 1.05)]),
}


def _turned(shape: str, degrees: float) -> Distance:
    """The shape turned clockwise."""
    c, s = (np.float32(f(math.radians(degrees))) for f in (math.cos, math.sin))
    return lambda x, y: OUTLINES[shape].distance(c * x + s * y, c * y - s * x)


def _stretched(shape: str, by: float) -> Distance:
    """The shape wider by a factor and lower by it; distances hold near its outline, roughly."""
    f = np.float32(by)
    return lambda x, y: OUTLINES[shape].distance(x / f, y * f)


def _half(shape: str, across: float, down: float) -> Distance:
    """The half of the shape that lies in this direction."""
    a, b = np.float32(across), np.float32(down)
    return lambda x, y: np.maximum(OUTLINES[shape].distance(x, y), -(a * x + b * y))


FOILS: tuple[Distance, ...] = (
    *(_turned("triangle", degrees) for degrees in (90, 180, 270)),
    *(_turned("heart", degrees) for degrees in (90, 180, 270)),
    _turned("cross", 45),
    *(_stretched(shape, by) for shape in ("circle", "square") for by in (1.28, 1 / 1.28)),
    *(_half("circle", *way) for way in ((0, -1), (1, 0), (0, 1), (-1, 0))),
)
"""What no scene holds, for a reader to know that something is none of the shapes."""
