"""From what is asked to words, in many ways: "a red circle above a blue square".

What is said here, `parsing.py` reads back to the same; the words of both stand in the tables below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couette.data.shapes.asking import Asked, Part
from couette.data.shapes.dice import Dice
from couette.data.shapes.vocabulary import Relation

Shares = tuple[tuple[str, float], ...]

NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLURALS: Final[Mapping[str, str]] = {"cross": "crosses"}
"""Of the shapes whose plural is not an s more."""
ANYTHING: Final = "shape"
"""What an object is called whose shape is not said."""

SIZE_WORDS: Final[Mapping[str, Shares]] = {
    "small": (("small", 0.6), ("little", 0.2), ("tiny", 0.2)),
    "medium": (("medium", 0.5), ("medium-sized", 0.5)),
    "large": (("large", 0.5), ("big", 0.5)),
}
RELATION_WORDS: Final[Mapping[Relation, Shares]] = {
    "above": (("above", 0.8), ("over", 0.2)),
    "below": (("below", 0.6), ("under", 0.2), ("beneath", 0.2)),
    "left of": (("to the left of", 0.5), ("left of", 0.5)),
    "right of": (("to the right of", 0.5), ("right of", 0.5)),
}
PLACE_WORDS: Final[Mapping[str, Shares]] = {
    "top": (("at the top", 1.0),),
    "bottom": (("at the bottom", 1.0),),
    "left": (("on the left", 0.7), ("on the left side", 0.3)),
    "right": (("on the right", 0.7), ("on the right side", 0.3)),
    "center": (("in the center", 0.5), ("in the middle", 0.5)),
    **{
        f"{row} {column}": (
            (f"in the {row} {column}", 0.7),
            (f"in the {row} {column} corner", 0.3),
        )
        for row in ("top", "bottom")
        for column in ("left", "right")
    },
}
BACKGROUND_WORDS: Final[Shares] = (
    ("on a {} background", 0.7),
    ("against a {} background", 0.15),
    ("on {}", 0.15),
)
LEADS: Final = ("a picture of", "a drawing of", "an image of")

_LEAD, _THERE, _FRONTED, _VERB, _AFTER, _FIGURE = 0.1, 0.15, 0.06, 0.25, 0.08, 0.2
"""How often: "a picture of", "there is", the end put first, "is above", "that is red", "3"."""
_ONE: Final[Shares] = (("a", 0.85), ("one", 0.1), ("", 0.05))


def say(asked: Asked, rolls: Dice) -> str:
    """One way of saying it, in lower case without a full stop; 24 words of `rolls` are enough."""
    first, *rest = [_noun(part, rolls) for part in asked.parts]
    verb = "is" if asked.parts[0].number == 1 else "are"
    ground = ""
    if asked.background:
        ground = rolls.weighed(BACKGROUND_WORDS).format(asked.background)
    fronted = rolls.chance(_FRONTED)
    if asked.relation:
        how = rolls.weighed(RELATION_WORDS[asked.relation])
        if fronted:
            return _joined(f"{how} {rest[0]} {verb} {first}", ground)
        if rolls.chance(_VERB):
            return _joined(f"{first} {verb} {how} {rest[0]}", ground)
        said = f"{first} {how} {rest[0]}"
    else:
        said = " and ".join((first, *rest))
        if fronted and ground:
            return f"{ground}, {said}" if rolls.chance(0.5) else f"{ground} there {verb} {said}"
    there = f"there {verb}", _THERE
    return _joined(rolls.weighed((there, (rolls.pick(LEADS), _LEAD), ("", 1.0))), said, ground)


def _noun(part: Part, rolls: Dice) -> str:
    """ "a small red circle in the top left", "three squares that are blue"."""
    alone = part.number == 1
    shape = part.shape or ANYTHING
    noun = shape if alone else PLURALS.get(shape, f"{shape}s")
    size = rolls.weighed(SIZE_WORDS[part.size]) if part.size else ""
    color, after = part.color or "", ""
    if color and rolls.chance(_AFTER):
        color, after = "", f"that {'is' if alone else 'are'} {color}"
    where = rolls.weighed(PLACE_WORDS[part.place]) if part.place else ""
    said = _joined(size, color, noun, after, where)
    return _joined(_number(part.number, said, rolls), said)


def _number(number: int | None, said: str, rolls: Dice) -> str:
    if number is None:
        return ""
    if number == 1:
        article = rolls.weighed(_ONE)
        return "an" if article == "a" and said[0] in "aeiou" else article
    return str(number) if rolls.chance(_FIGURE) else NUMBERS[number - 1]


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
