"""What a picture shows, before it is drawn: objects on a background, and how they lie.

Lengths are shares of the picture's side; x goes to the right and y down.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from couette.data.shapes.outlines import OUTLINES
from couette.data.shapes.vocabulary import (
    BACKGROUNDS,
    COLORS,
    PLACES,
    SIZES,
    Relation,
)
from couette.errors import ConfigError, UnknownName


class Thing(NamedTuple):
    """One object: what it is, and where its centre of mass lies."""

    color: str
    shape: str
    size: str
    x: float
    y: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Its left, top, right and bottom edge."""
        outline, size = OUTLINES[self.shape], SIZES[self.size]
        across, up, down = outline.across * size, outline.up * size, outline.down * size
        return self.x - across, self.y - up, self.x + across, self.y + down


class Scene(NamedTuple):
    """A picture before it is drawn. `things` do not overlap; their order means nothing."""

    background: str
    things: tuple[Thing, ...]


class Lies(Protocol):
    """What has a centre: an object of a scene, or one seen in a picture."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...


def relation(a: Lies, b: Lies, least: float = 0.15) -> Relation | None:
    """How `a` lies to `b`: along the axis on which they are further apart, if by `least` or more.

    In composed scenes they are `composing.APART` apart and at most half as far on the other axis,
    so that what a reader sees may be a good way off without another relation holding.
    """
    across, down = a.x - b.x, a.y - b.y
    if max(abs(across), abs(down)) < least or abs(across) == abs(down):
        return None
    if abs(down) > abs(across):
        return "above" if down < 0 else "below"
    return "left of" if across < 0 else "right of"


STRICT = ((0.0, 0.36), (0.46, 0.54), (0.64, 1.0))
"""Where, along an axis, an object is said to be at the beginning, in the middle, at the end."""
LOOSE = ((0.0, 0.41), (0.37, 0.63), (0.59, 1.0))
"""Where it still counts as being there."""


def place(thing: Lies) -> str | None:
    """The place where an object clearly lies, or None between places."""
    return next((name for name in PLACES if at_place(thing, name, STRICT)), None)


def at_place(thing: Lies, name: str, bounds: Sequence[tuple[float, float]] = LOOSE) -> bool:
    """Whether an object lies at one of the nine places."""
    row, column = divmod(PLACES.index(name), 3)
    (left, right), (top, bottom) = bounds[column], bounds[row]
    return left <= thing.x <= right and top <= thing.y <= bottom


def check(given: Sequence[Scene]) -> None:
    """Refuse words that are not in the vocabulary, and objects that leave the picture.

    Raises:
        UnknownName: a background, colour, shape or size that there is not.
        ConfigError: an object that is not whole in the picture.
    """
    for scene in given:
        _known("background", scene.background, BACKGROUNDS)
        for thing in scene.things:
            _known("colour", thing.color, COLORS)
            _known("shape", thing.shape, OUTLINES)
            _known("size", thing.size, SIZES)
            if not (min(thing.box) >= 0 and max(thing.box) <= 1):
                raise ConfigError(
                    f"A {thing.size} {thing.color} {thing.shape} at ({thing.x:g}, {thing.y:g}) "
                    "leaves the picture; x and y go from 0 to 1, and the whole object must fit."
                )


def _known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownName(kind, name, known)
