"""Views of a picture: the ways of looking at it that an anagram is made of.

A view is orthogonal: it keeps the length of what it looks at, so that noise stays noise, and is
undone by `undo`. All but `negative` only move pixels about. Shapes: H height, W width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from couette.editing.registry import VIEWS
from couette.errors import InputError
from couette.storage import read_text
from couette.tensors import permutation

Map = Callable[[Tensor], Tensor]


class View(NamedTuple):
    """A way of looking at (…, H, W), and the way back; linear, and orthogonal."""

    look: Map
    undo: Map


def orthogonal(view: View, shape: tuple[int, ...]) -> bool:
    """Whether a view is linear, keeps lengths and is undone, on two random pictures."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    seen = view.look(a)
    if seen.shape != a.shape:
        return False
    linear = torch.allclose(view.look(a - 2 * b), seen - 2 * view.look(b), atol=1e-6)
    kept = torch.allclose((seen * view.look(b)).sum(), (a * b).sum(), atol=1e-6)
    return linear and kept and torch.allclose(view.undo(seen), a, atol=1e-6)


def rearranged(places: Tensor) -> View:
    """The view whose pixel i is the picture's pixel places[i]; places (H, W) int64.

    Raises:
        InputError: not every pixel has its place once.
    """
    flat = places.flatten()
    if not torch.equal(flat.sort().values, torch.arange(len(flat))):
        raise InputError(
            f"A rearrangement of {len(flat)} pixels names each number from 0 to {len(flat) - 1} "
            "once; this one does not, so it would not be orthogonal."
        )
    back = flat.argsort()

    def moved(x: Tensor, order: Tensor) -> Tensor:
        return x.flatten(-2)[..., order.to(x.device)].reshape(x.shape)

    return View(lambda x: moved(x, flat), lambda x: moved(x, back))


def _grid(height: int, width: int) -> Tensor:
    return torch.arange(height * width).reshape(height, width)


@VIEWS.register("identity", known_as=("identity",))
def identity(height: int, width: int) -> View:
    """The picture as it is. When to use it: as one of the views."""
    return View(lambda x: x, lambda x: x)


@VIEWS.register("flip", known_as=("flip",))
def flip(height: int, width: int) -> View:
    """Upside down: mirrored at the horizontal. When to use it: for what water mirrors."""
    return View(lambda x: x.flip(-2), lambda x: x.flip(-2))


@VIEWS.register("mirror")
def mirror(height: int, width: int) -> View:
    """Left and right exchanged. When to use it: for what a mirror shows."""
    return View(lambda x: x.flip(-1), lambda x: x.flip(-1))


@VIEWS.register("negative", known_as=("negate",))
def negative(height: int, width: int) -> View:
    """Dark and light exchanged. When to use it: for two pictures of one outline."""
    return View(lambda x: -x, lambda x: -x)


@VIEWS.register(
    "rotate",
    variants={
        "degrees=90": ("rotate_ccw",),
        "degrees=180": ("rotate_180",),
        "degrees=270": ("rotate_cw",),
    },
)
def rotate(
    height: int,
    width: int,
    *,
    degrees: float = 180.0,
    radius: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> View:
    """Turned counter-clockwise: right angles whole, others within the inscribed circle.

    By three shears in whole pixels (Paeth 1986), so that it stays a rearrangement; what these turn
    over the circle's edge takes the places that they leave empty. A radius below 1 turns a smaller
    circle. When to use it: first; half a turn asks the least of a picture.

    Raises:
        InputError: a quarter turn of a picture that is not square.
    """
    quarter = degrees % 90 == 0
    if quarter and radius == 1:
        turns = round(degrees / 90) % 4
        if turns % 2 and height != width:
            raise InputError(
                f"A quarter turn needs square pictures, and these are {height}×{width}."
            )
        return rearranged(torch.rot90(_grid(height, width), turns))
    return rearranged(turned_disc(height, width, degrees, radius))


@VIEWS.register("circle", known_as=("inner_circle",))
def circle(
    height: int,
    width: int,
    *,
    degrees: float = 180.0,
    radius: Annotated[float, Field(gt=0, le=1)] = 0.75,
) -> View:
    """An inner circle turned, and all around it left.

    When to use it: for two pictures in one frame.
    """
    return rearranged(turned_disc(height, width, degrees, radius))


@VIEWS.register("skew", known_as=("skew",))
def skew(height: int, width: int, *, slope: float = 1.0) -> View:
    """Each column pushed down by `slope` pixels more than the one before; what leaves below comes
    back above. When to use it: for a picture that shows its second side when it leans."""
    rows = torch.arange(height)[:, None] - (torch.arange(width) * slope).round().long()
    return rearranged(rows.remainder(height) * width + torch.arange(width))


@VIEWS.register("patches", known_as=("patch_permute",))
def patches(
    height: int, width: int, *, across: Annotated[int, Field(ge=2)] = 4, seed: int = 0
) -> View:
    """Cut into `across` × `across` patches, which change places.

    When to use it: for puzzles of square tiles.

    Raises:
        InputError: a picture that can't be cut so.
    """
    _need_whole(height, width, across)
    order = permutation(seed, 0, across * across)
    cut = _grid(height, width).reshape(across, height // across, across, width // across)
    cut = cut.transpose(1, 2).flatten(0, 1)[order]
    return rearranged(
        cut.reshape(across, across, *cut.shape[1:]).transpose(1, 2).reshape(height, width)
    )


@VIEWS.register("pixels", known_as=("pixel_permute",))
def pixels(height: int, width: int, *, seed: int = 0) -> View:
    """Every pixel at another place. When to use it: to see that noise can be a picture."""
    return rearranged(permutation(seed, 0, height * width).reshape(height, width))


@VIEWS.register("jigsaw", known_as=("jigsaw",))
def jigsaw(
    height: int, width: int, *, across: Annotated[int, Field(ge=2)] = 4, seed: int = 0
) -> View:
    """A puzzle whose pieces, tabs and all, are put together in another way.

    Pieces that lie alike in the four quarters of the picture are of one shape, turned; they change
    places among themselves (the idea of Geng et al. 2024, sec. 4.5, with pieces of our own). When
    to use it: for puzzles that can be laid in two ways.

    Raises:
        InputError: a picture that is not square, or can't be cut so.
    """
    if height != width:
        raise InputError(f"A jigsaw needs square pictures, and these are {height}×{width}.")
    _need_whole(height, width, across)
    piece = pieces(height, across)
    places = _grid(height, width)
    turned = [torch.rot90(places, k) for k in range(4)]
    result = places.clone()
    for number, orbit in enumerate(_orbits(across)):
        if len(orbit) < 4:
            continue
        # Piece j of an orbit is piece 0 turned j times: where i stood, j comes, turned i − j times.
        order = permutation(seed, number, 4).tolist()
        for i, j in enumerate(order):
            here = piece == orbit[i]
            result[here] = turned[(i - j) % 4][here]
    return rearranged(result)


@VIEWS.register("permutation")
def given(height: int, width: int, *, file: str) -> View:
    """A rearrangement of your own: a JSON file with a list of H·W numbers, row by row.

    Number i says which pixel of the picture is seen at place i. When to use it: for any view that
    is not here.

    Raises:
        InputError: not a list of that length, or not each number once.
    """
    path = Path(file)
    try:
        numbers = json.loads(read_text(path))
        places = torch.tensor(numbers, dtype=torch.int64).flatten()
    except (ValueError, TypeError, RecursionError, OverflowError, RuntimeError):
        raise InputError(f"{path} is no JSON list of whole numbers.") from None
    if places.numel() != height * width:
        raise InputError(
            f"{path} holds {places.numel()} numbers, and pictures of {height}×{width} have "
            f"{height * width} pixels."
        )
    return rearranged(places.reshape(height, width))


def turned_disc(height: int, width: int, degrees: float, radius: float) -> Tensor:
    """Places (H, W) of a disc turned counter-clockwise about the centre, the rest left.

    A rotation is three shears (Paeth 1986); rounded to whole pixels each of them is a bijection of
    the plane's grid. Beyond half a turn the picture is first turned by right angles, which are
    exact.
    """
    reach = radius * min(height, width) / 2
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    inside = x.square() + y.square() <= reach**2
    # Where what is seen at (x, y) lies in the picture: (x, y) turned back, y downward.
    turns = round(degrees / 90) if (height - width) % 2 == 0 else 2 * round(degrees / 180)
    rest = math.radians(degrees - 90 * turns)
    u, v = x[inside], y[inside]
    for _ in range(turns % 4):
        u, v = -v, u
    half = math.tan(rest / 2)
    u = u - (v * half).round()
    v = v + (u * math.sin(rest)).round()
    u = u - (v * half).round()
    landed = torch.stack((v + (height - 1) / 2, u + (width - 1) / 2)).round().long()
    there = ((landed >= 0) & (landed < torch.tensor([[height], [width]]))).all(0)
    whose = torch.full_like(landed[0], -1)
    whose[there] = landed[0][there] * width + landed[1][there]
    kept = there & inside.flatten()[whose.clamp(min=0)]
    # A place is taken once: what would come to it again, and what leaves the disc, is matched by
    # angle with the places left over.
    free = inside.flatten().clone()
    free[whose[kept]] = False
    left = free.nonzero()[:, 0]
    lost = (~kept).nonzero()[:, 0]
    centre = (torch.atan2(v, u)[lost]).argsort()
    around = torch.atan2(y.flatten()[left], x.flatten()[left]).argsort()
    whose[lost[centre]] = left[around]
    places = _grid(height, width)
    places[inside] = whose
    return places


def pieces(size: int, across: int) -> Tensor:
    """Which piece each pixel of a puzzle is of, (size, size) int64; turned by a right angle it is
    the same puzzle."""
    side = size // across
    at = torch.arange(size) // side
    label = at[:, None] * across + at
    centre = torch.arange(size, dtype=torch.float64) + 0.5
    # The edges between neighbours in a row, one of each pair that half a turn exchanges.
    edges = [(r, c) for r in range(across) for c in range(across - 1)]
    first = [(r, c) for r, c in edges if (r, c) <= (across - 1 - r, across - 2 - c)]
    for number, (r, c) in enumerate(first):
        out = 1 if number % 2 else -1
        y, x = (r + 0.5) * side, (c + 1) * side + out * 0.15 * side
        tab = (centre[:, None] - y).square() + (centre - x).square() < (0.22 * side) ** 2
        owner = (r, c) if out > 0 else (r, c + 1)
        for turns in range(4):
            whose = owner
            for _ in range(turns):
                whose = (across - 1 - whose[1], whose[0])
            label[torch.rot90(tab, turns)] = whose[0] * across + whose[1]
    return label


def _orbits(across: int) -> list[list[int]]:
    """Pieces that right angles carry into each other, each the one before it turned."""
    found: list[list[int]] = []
    for r in range(across):
        for c in range(across):
            orbit, at = [], (r, c)
            while at[0] * across + at[1] not in orbit:
                orbit.append(at[0] * across + at[1])
                at = (across - 1 - at[1], at[0])
            if not any(orbit[0] in other for other in found):
                found.append(orbit)
    return found


def _need_whole(height: int, width: int, across: int) -> None:
    if height % across or width % across:
        raise InputError(
            f"Pictures of {height}×{width} can't be cut into {across} equal parts each way; choose "
            "a divisor of both sides."
        )
