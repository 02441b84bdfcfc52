"""The reader: what a picture shows, measured. It uses no learned model.

Objects are what stands out from the background. Each is brought to one size and place by its
moments and compared with drawings, which went the same way, of every shape and of foils: figures
that no scene holds, such as half discs, ellipses and triangles on their heads. Its colour is the
one that the best of the drawings would have to be painted in to look like it. What is most like a
foil, or not much like anything, has no shape; what is near no colour of the palette has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from couette.data.shapes.blobs import Blobs, Floats, blobs_of, paper_of
from couette.data.shapes.drawing import coverage
from couette.data.shapes.outlines import FOILS, OUTLINES, Distance
from couette.data.shapes.scenes import Scene
from couette.data.shapes.vocabulary import BACKGROUNDS, COLORS, SHAPES, SIZES, Color
from couette.errors import ShapeError

LEAST, MOST = 32, 128
ALIKE = 0.93
"""How well, as a correlation, a part must match the drawing of a shape to be taken for it.

Drawn scenes lie above 0.98, with blur and noise as well; outlines that wobble by half a pixel at 32
pixels lie above 0.93, but for one in a hundred.
"""
NEAR = 0.12
"""How close, in OKLab, a colour must be to one of the palette to be taken for it."""
SIZE_OFF = 1.25
"""How many times larger than the largest size, or smaller than the smallest, still counts."""

_AT_ONCE = 1 << 18
"""Pixels that are worked on at a time."""
_SAMPLED = 4 / 9
"""What bilinear sampling leaves of the power of noise, on average."""
_FINEST = 64
"""The side of the pictures of which drawings are made for finer ones, too."""
_BLURS = (0.0, 0.5, 0.8, 1.1)
_SHIFTS = (0.0, 0.33, 0.67)


class Seen(NamedTuple):
    """One object as it was read.

    shape, color, size: None where the object has none that is known.
    x, y: its centre of mass, in shares of the picture's side.
    radius: its size in the same, comparable with `SIZES` where the shape is known.
    likeness: the correlation with the drawing that is most like it, of whatever it is; at most 1.
    """

    shape: str | None
    color: str | None
    size: str | None
    x: float
    y: float
    radius: float
    likeness: float


class Reading(NamedTuple):
    """What a picture shows. background: None where it is of no colour that backgrounds have."""

    background: str | None
    objects: tuple[Seen, ...]


def read(pictures: Tensor) -> list[Reading]:
    """Tell what pictures show.

    Args:
        pictures: (B, 3, S, S), uint8 or floats in [-1, 1], with S from 32 to 128.

    Returns:
        One reading for each; its objects are in no special order.

    Raises:
        ShapeError: pictures of another shape.
    """
    _check(pictures)
    side = pictures.shape[2]
    step = max(1, _AT_ONCE // side**2)
    found: list[Reading] = []
    for start in range(0, len(pictures), step):
        part = pictures[start : start + step].detach().cpu()
        if part.is_floating_point():
            part = part.float().nan_to_num(0).clamp(-1, 1).add(1).mul(127.5)
        found += _read(part.permute(0, 2, 3, 1).float().numpy())
    return found


def seen_exactly(scene: Scene) -> Reading:
    """What a faultless reader says of a scene's picture."""
    return Reading(
        scene.background,
        tuple(Seen(t.shape, t.color, t.size, t.x, t.y, SIZES[t.size], 1.0) for t in scene.things),
    )


def _check(pictures: Tensor) -> None:
    shape = tuple(pictures.shape)
    fits = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
    if not (fits and LEAST <= shape[2] <= MOST):
        raise ShapeError(
            f"The reader of scenes was given {shape}; it reads (B, 3, S, S) with S from {LEAST} to "
            f"{MOST}."
        )
    if not (pictures.is_floating_point() or pictures.dtype == torch.uint8):
        raise ShapeError(
            f"The reader of scenes was given {pictures.dtype}; it reads uint8, or floats in "
            "[-1, 1]."
        )


def _read(pictures: Floats) -> list[Reading]:
    side = pictures.shape[1]
    paper, noise = paper_of(pictures)
    grounds = _nearest(paper, BACKGROUNDS)
    blobs = blobs_of(pictures, paper, noise)
    if not len(blobs.picture):
        return [Reading(ground, ()) for ground in grounds]
    bank = _bank(min(side, _FINEST))
    plain = _plain(blobs)
    likeness, best = bank.compared(blobs, plain, noise)
    named = np.array([shape is not None for shape in bank.shapes])
    known = (likeness >= ALIKE) & named[best]
    # A shape says how much of each pixel is paint; without one the strongest pixels must do.
    paint = np.where(known[:, None, None], bank.patches[best], _strongest(plain))
    differs = np.einsum("mhw,mhwc->mc", paint, blobs.patch) / np.square(paint).sum((1, 2))[:, None]
    colors = _nearest(paper[blobs.picture] + differs, COLORS)
    radii = bank.radius(best, blobs.gyration / side)
    objects: list[list[Seen]] = [[] for _ in pictures]
    for i, row in enumerate(blobs.picture.tolist()):
        shape = bank.shapes[best[i]] if known[i] else None
        size = _size(float(radii[i])) if shape else None
        x, y = float(blobs.x[i]) / side, float(blobs.y[i]) / side
        objects[row].append(Seen(shape, colors[i], size, x, y, float(radii[i]), float(likeness[i])))
    return [Reading(ground, tuple(each)) for ground, each in zip(grounds, objects, strict=True)]


class _Bank(NamedTuple):
    """Drawings of every shape in every size, a little shifted and blurred, as the reader sees them.

    shapes: (K,), None for foils. radii, gyrations: (K,), in shares of the side.
    unit: (K, GRID²), centred and of norm 1. patches: (K, GRID, GRID), 1 where an object covers.
    """

    shapes: tuple[str | None, ...]
    unit: Floats
    patches: Floats
    radii: Floats
    gyrations: NDArray[np.float64]

    def compared(
        self, blobs: Blobs, plain: Floats, noise: Floats
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The correlation with the drawing that is most like each blob, and which that is.

        What noise (B,) takes from a correlation is given back, from how much of it there is.
        """
        every = _unit(plain) @ self.unit.T
        energy = np.maximum(plain.var((1, 2)), 1e-9)
        lost = _SAMPLED * np.square(noise[blobs.picture]) * (plain != 0).mean((1, 2))
        gain = 1 / np.sqrt(np.clip(1 - lost / energy, 0.5, 1))
        best = every.argmax(1)
        likeness = every[np.arange(len(best)), best] * gain
        return np.minimum(likeness, 1), best

    def radius(self, best: NDArray[np.int64], gyration: NDArray[np.float64]) -> NDArray[np.float64]:
        """The size of blobs, in shares of the side, from that of the drawings most like them."""
        return self.radii[best] * (gyration / self.gyrations[best])


def _plain(blobs: Blobs) -> Floats:
    """Patches in one channel, (M, GRID, GRID): along the way from the background to the blob."""
    total = blobs.patch.sum((1, 2))
    towards = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    plain: Floats = np.einsum("mhwc,mc->mhw", blobs.patch, towards)
    return plain


def _strongest(plain: Floats) -> Floats:
    """1 where a patch is within a fifth of its most, else 0."""
    strong: Floats = (plain >= 0.8 * plain.max((1, 2), keepdims=True)).astype(np.float32)
    return strong


def _unit(patches: Floats) -> Floats:
    flat = patches.reshape(len(patches), -1)
    flat = flat - flat.mean(1, keepdims=True)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return unit


@cache
def _bank(side: int) -> _Bank:
    """The drawings for pictures of this side; made once."""
    from scipy import ndimage

    figures: list[tuple[str | None, Distance]] = [
        (name, OUTLINES[name].distance) for name in SHAPES
    ]
    figures += [(None, foil) for foil in FOILS]
    shifts = np.array([(x, y) for x in _SHIFTS for y in _SHIFTS], np.float32)
    corners = np.zeros((len(shifts), 2), np.int64)
    shapes: list[str | None] = []
    parts, radii = [], []
    for shape, distance in figures:
        for size in SIZES.values():
            radius = np.full(len(shifts), size * side, np.float32)
            plain = coverage(distance, shifts + side // 2, radius, corners, side)
            blurred = [ndimage.gaussian_filter(plain, (0, blur, blur)) for blur in _BLURS]
            covered = np.concatenate(blurred)[..., None].repeat(3, 3) * 255
            nothing = np.zeros(len(covered), np.float32)
            parts.append(blobs_of(covered, covered[:, 0, 0], nothing))
            shapes += [shape] * len(covered)
            radii += [radius / side] * len(_BLURS)
    patches: Floats = np.concatenate([part.patch[..., 0] / np.float32(255) for part in parts])
    assert len(patches) == len(shapes)
    gyrations = np.concatenate([part.gyration for part in parts]) / side
    return _Bank(tuple(shapes), _unit(patches), patches, np.concatenate(radii), gyrations)


def _size(radius: float) -> str | None:
    """The size nearest in ratio, or None beyond the smallest and the largest."""
    ordered = sorted(SIZES, key=lambda name: SIZES[name])
    if not SIZES[ordered[0]] / SIZE_OFF <= radius <= SIZES[ordered[-1]] * SIZE_OFF:
        return None
    return min(ordered, key=lambda name: abs(np.log(radius / SIZES[name])))


def _nearest(colors: Floats, palette: Mapping[str, Color]) -> list[str | None]:
    """The name in the palette of each colour (M, 3), or None where none is near."""
    names = list(palette)
    known = oklab(np.array(list(palette.values()), np.float32))
    apart = np.linalg.norm(oklab(colors)[:, None] - known, axis=2)
    return [
        names[best] if row[best] <= NEAR else None
        for row, best in zip(apart, apart.argmin(1), strict=True)
    ]


_TO_CONES = np.array(
    [
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    ]
)
_TO_LAB = np.array(
    [
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ]
)


def oklab(colors: Floats) -> Floats:
    """sRGB in 0..255, (..., 3), as lightness, green to red and blue to yellow.

    Distances are as people see them. Björn Ottosson 2020, "A perceptual color space for image
    processing".
    """
    part = np.clip(colors / 255, 0, 1)
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    lab: Floats = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab
