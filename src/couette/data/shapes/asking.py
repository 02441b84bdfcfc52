"""What a caption or a prompt says of a picture, apart from its wording."""

from __future__ import annotations

from typing import NamedTuple

from couette.data.shapes.composing import Pair
from couette.data.shapes.dice import Dice
from couette.data.shapes.scenes import Scene, Thing, place, relation
from couette.data.shapes.vocabulary import Relation

UNTOLD = 0.04
"""How often a caption leaves out the colour of a lone object, and how often its shape."""
TOLD_RELATION = 0.8
TOLD_PLACE = 0.5
TOLD_BACKGROUND = 0.35
TOLD_SIZE = {"small": 0.35, "medium": 0.08, "large": 0.35}
"""How often a caption says where things lie, what they lie on, and how large they are."""


class Part(NamedTuple):
    """Objects that are asked for: what is None is not asked.

    number: how many of them; None for some, two or more.
    place: where a lone object is to lie, one of `vocabulary.PLACES`.
    """

    number: int | None = 1
    size: str | None = None
    color: str | None = None
    shape: str | None = None
    place: str | None = None


class Asked(NamedTuple):
    """One or two parts, how the first lies to the second, and what they lie on."""

    parts: tuple[Part, ...]
    relation: Relation | None = None
    background: str | None = None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The colours and shapes that are asked for together."""
        return tuple((p.color, p.shape) for p in self.parts if p.color and p.shape)


def tell(scene: Scene, rolls: Dice, *, whole: bool = False, related: bool = False) -> Asked:
    """Something true of a scene: what is in it, and at times where, how large and on what.

    Args:
        scene: one object, two that differ, or several alike.
        rolls: decide what is said; 16 words are enough.
        whole: every colour and every shape is said.
        related: of two objects, how they lie is always said.
    """
    background = scene.background if rolls.chance(TOLD_BACKGROUND) else None
    first, *rest = scene.things
    if not rest:
        return Asked((_lone(first, rolls, whole),), None, background)
    if all(thing[:3] == first[:3] for thing in rest):
        return Asked((_part(first, rolls)._replace(number=len(scene.things)),), None, background)
    a, b = scene.things if rolls.chance(0.5) else scene.things[::-1]
    held = relation(a, b) if rolls.chance(TOLD_RELATION) or related else None
    return Asked((_part(a, rolls), _part(b, rolls)), held, background)


def _part(thing: Thing, rolls: Dice) -> Part:
    size = thing.size if rolls.chance(TOLD_SIZE[thing.size]) else None
    return Part(1, size, thing.color, thing.shape)


def _lone(thing: Thing, rolls: Dice, whole: bool) -> Part:
    part = _part(thing, rolls)
    if rolls.chance(TOLD_PLACE):
        part = part._replace(place=place(thing))
    untold = rolls.weighed((("color", UNTOLD), ("shape", UNTOLD), ("", 1 - 2 * UNTOLD)))
    return part._replace(**{untold: None}) if untold and not whole else part
