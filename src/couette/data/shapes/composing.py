"""Scenes made up: one object, two that differ, or several alike, placed so that words fit them.

A scene is a function of (seed, split, index), so it does not depend on how many are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import combinations
from typing import Literal

from couette.data.shapes.dice import Dice, Draws, dice
from couette.data.shapes.scenes import STRICT, Scene, Thing
from couette.data.shapes.vocabulary import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    MOST,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
)

MARGIN = 0.03
"""The least distance of an object from the picture's edge, as all lengths in shares of its side."""
GAP = 0.1
"""Two objects lie this far apart, or further, along one of the axes."""
APART = 0.3
"""What is above another object has its centre at least so much higher, and at most half as far to
the side; likewise for the other relations."""

Kind = Literal["one", "two", "several"]
SHARES: tuple[tuple[Kind, float], ...] = (("one", 0.35), ("two", 0.4), ("several", 0.25))
"""How often a scene is of one object, of two that differ, or of two to four alike."""
PLACED = 0.6
"""How often a lone object lies clearly at one of the nine places; else it lies anywhere."""

Pair = tuple[str, str]
SEEN: tuple[Pair, ...] = tuple(
    (color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in HELD_OUT
)
"""The colours and shapes that are drawn together."""

_TRIES = 12
_WORDS = 2 * _TRIES * MOST + 32
_Span = tuple[float, float]


class Split(IntEnum):
    """Scenes to train on, and others of the same kind."""

    TRAIN = 0
    TEST = 1


def compose(
    indices: range,
    *,
    seed: int = 0,
    split: Split = Split.TRAIN,
    kind: Kind | None = None,
    pairs: Sequence[Pair] = SEEN,
    stream: int = Draws.SCENE,
) -> Iterator[Scene]:
    """The scenes of these indices.

    Args:
        indices: which scenes; `range(n)` for the first n.
        seed, split, stream: another of these gives other scenes.
        kind: "one", "two" or "several" objects; by `SHARES` when not given.
        pairs: the colours and shapes to choose from, two at least where kind is not "one".
    """
    for rolls in dice(seed, indices, split, stream, _WORDS):
        chosen = rolls.weighed(SHARES)
        background = rolls.pick(tuple(BACKGROUNDS))
        things = _MAKERS[kind or chosen](rolls, pairs)
        yield Scene(background, things)


def _one(rolls: Dice, pairs: Sequence[Pair]) -> tuple[Thing, ...]:
    """A lone object, most often at one of the places."""
    thing = _unplaced(rolls, rolls.pick(pairs))
    across, down = _room(thing)
    if rolls.chance(PLACED):
        row, column = divmod(rolls.pick(range(len(PLACES))), 3)
        across, down = _within(across, STRICT[column]), _within(down, STRICT[row])
    return (thing._replace(x=rolls.between(*across), y=rolls.between(*down)),)


def _two(rolls: Dice, pairs: Sequence[Pair]) -> tuple[Thing, ...]:
    """Two objects that differ in colour, shape or both; one of four relations holds clearly."""
    pair = rolls.pick(pairs)
    first = _unplaced(rolls, pair)
    second = _unplaced(rolls, rolls.pick([each for each in pairs if each != pair]))
    upright = rolls.pick(RELATIONS) in ("above", "below")
    axis = 1 if upright else 0
    # The boxes are around the origin still: their edges are how far the objects reach.
    apart = max(APART, first.box[2 + axis] - second.box[axis] + GAP)
    low, high = MARGIN - first.box[axis], 1 - MARGIN - second.box[2 + axis]
    slack = max(high - low - apart, 0)
    begin, end = sorted((rolls.unit(), rolls.unit()))
    near, far = low + begin * slack, low + apart + end * slack
    side = rolls.between(*_room(first)[1 - axis])
    reach = (far - near) / 2
    other = rolls.between(*_within(_room(second)[1 - axis], (side - reach, side + reach)))
    if upright:
        return first._replace(x=side, y=near), second._replace(x=other, y=far)
    return first._replace(x=near, y=side), second._replace(x=far, y=other)


def _several(rolls: Dice, pairs: Sequence[Pair]) -> tuple[Thing, ...]:
    """Two to four objects that are alike, thrown anywhere; in quarters where they would not fit."""
    count = rolls.pick(range(2, MOST + 1))
    like = _unplaced(rolls, rolls.pick(pairs))
    left, top, right, bottom = like.box
    wide, high = right - left + GAP, bottom - top + GAP
    across, down = _room(like)
    placed: list[_Span] = []
    for _ in range(count):
        for _ in range(_TRIES):
            x, y = rolls.between(*across), rolls.between(*down)
            if all(abs(x - a) >= wide or abs(y - b) >= high for a, b in placed):
                placed.append((x, y))
                break
    if len(placed) < count:
        return _quartered(rolls, like, count)
    return tuple(like._replace(x=x, y=y) for x, y in placed)


def _quartered(rolls: Dice, like: Thing, count: int) -> tuple[Thing, ...]:
    """One object each in some of the four quarters of the picture."""
    side = (1 - 2 * MARGIN - GAP) / 2
    left, top, right, bottom = like.box
    placed = []
    for quarter in rolls.pick(list(combinations(range(MOST), count))):
        row, column = divmod(quarter, 2)
        x, y = MARGIN + column * (side + GAP), MARGIN + row * (side + GAP)
        across, down = (x - left, x + side - right), (y - top, y + side - bottom)
        placed.append(like._replace(x=rolls.between(*across), y=rolls.between(*down)))
    return tuple(placed)


_MAKERS = {"one": _one, "two": _two, "several": _several}


def _unplaced(rolls: Dice, pair: Pair) -> Thing:
    """An object of some size around the origin."""
    return Thing(*pair, rolls.pick(tuple(SIZES)), 0.0, 0.0)


def _room(thing: Thing) -> tuple[_Span, _Span]:
    """Where the centre of an object around the origin may lie, across and down."""
    left, top, right, bottom = thing.box
    return (MARGIN - left, 1 - MARGIN - right), (MARGIN - top, 1 - MARGIN - bottom)


def _within(span: _Span, other: _Span) -> _Span:
    return max(span[0], other[0]), min(span[1], other[1])
