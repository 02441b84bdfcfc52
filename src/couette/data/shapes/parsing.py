"""From words to what is asked: captions, and what people write in their way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from couette.data.shapes.asking import Asked, Part
from couette.data.shapes.vocabulary import BACKGROUNDS, COLORS, PLACES, RELATIONS, SHAPES, Relation
from couette.data.shapes.wording import (
    ANYTHING,
    NUMBERS,
    PLURALS,
    RELATION_WORDS,
    SIZE_WORDS,
)
from couette.errors import InputError

EXAMPLE: Final = "a red circle above a blue square"


def _table(*tables: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """From each word to what it means."""
    return {word: name for table in tables for name, words in table.items() for word in words}


_NOUNS = _table(
    {shape: (shape,) for shape in SHAPES},
    {
        "circle": ("disc", "disk", "dot"),
        "square": ("box",),
        "cross": ("plus", "plus sign"),
        "ring": ("donut", "doughnut"),
        "diamond": ("rhombus",),
        ANYTHING: (ANYTHING, "object", "thing", "figure"),
    },
)
_MANY = {
    PLURALS.get(word, f"{word}es" if word.endswith(("x", "s")) else f"{word}s"): shape
    for word, shape in _NOUNS.items()
}
_COLORS = _table(
    {color: (color,) for color in COLORS},
    {"purple": ("violet",), "cyan": ("turquoise", "teal")},
)
_GROUNDS = _table(
    {name: (name,) for name in BACKGROUNDS}, {"gray": ("grey",), "navy": ("navy blue",)}
)
_SIZES = _table({size: (word for word, _ in words) for size, words in SIZE_WORDS.items()})
_NUMBERS = {"a": 1, "an": 1, "the": 1, "a single": 1, "a pair of": 2} | {
    word: number for number, name in enumerate(NUMBERS, 1) for word in (name, str(number))
}
_RELATIONS = _table(
    {name: (word for word, _ in words) for name, words in RELATION_WORDS.items()},
    {
        "above": ("on top of",),
        "below": ("underneath",),
        "left of": ("on the left of", "on the left side of"),
        "right of": ("on the right of", "on the right side of"),
    },
)
_ROWS = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_MIDDLE = ("center", "centre", "middle")


def _either(words: Iterable[str]) -> str:
    """A pattern for one of the words, the longest first."""
    return f"(?:{'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})"


_LEAD = re.compile(
    r"(?:please )?(?:(?:show|draw|paint)(?: me)? )?"
    r"(?:(?:a|an|the) (?:\w+ )?(?:picture|drawing|image|painting|photo) (?:of|with|showing) )?"
    r"(?:(?:there (?:is|are)|it shows) )?"
)
_GROUND = re.compile(
    r"\b(?:on|against|with|over|in front of) (?:"
    r"(?:a|an|the) (?:plain )?(?P<named>\w+(?: blue)?) (?:background|backdrop|canvas)|"
    rf"(?P<bare>{_either(_GROUNDS)})\b(?! {_either((*_NOUNS, *_MANY))}))"
)
_PLACE = (
    r"(?:in|at|on|near) the (?:very )?(?:"
    rf"(?P<row>{_either(_ROWS)})(?: (?P<column>left|right))?|"
    rf"(?P<side>left|right)(?: hand)?|{_either(_MIDDLE)})"
    r"(?: (?:corner|side|edge|half|part))?\b(?! of)"
)
_PART = re.compile(
    rf"(?:(?P<number>{_either(_NUMBERS)}) )?"
    rf"(?:(?P<size>{_either(_SIZES)}) )?(?:(?P<color>{_either(_COLORS)}) )?"
    rf"(?P<noun>{_either((*_NOUNS, *_MANY))})\b"
    rf"(?: (?:that|which) (?:is|are) (?P<after>{_either(_COLORS)})\b)?"
    rf"(?: (?:that is |that are )?(?P<place>{_PLACE}))? ?"
)
_HOW = re.compile(rf"(?:(?:that|which) )?(?:(?:is|are|lies|lie) )?(?P<how>{_either(_RELATIONS)}) ")
_AND = re.compile(r"(?:and|with|plus) (?:there (?:is|are) )?")
_THEN = re.compile(r"(?:there )?(?:is|are|lies|lie) ")


def understood(prompt: str) -> Asked:
    """What a prompt asks for: "a red circle above a blue square", "three small yellow stars".

    Capitals, punctuation and articles make no difference. One or two kinds of objects can be asked
    for, with a number, a size, a colour and a place each, how the first lies to the second, and a
    background.

    Raises:
        InputError: words that are not about such scenes; the first of them is named.
    """
    text, background = _without_background(prompt)
    reader = _Cursor(text, prompt)
    reader.take(_LEAD)
    fronted = reader.take(_HOW)
    first = reader.part()
    if fronted:
        reader.need(_THEN)
        asked = Asked((reader.part(), first), _relation(fronted["how"]), background)
    elif how := reader.take(_HOW):
        asked = Asked((first, reader.part()), _relation(how["how"]), background)
    elif reader.take(_AND):
        asked = Asked((first, reader.part()), None, background)
    else:
        asked = Asked((first,), None, background)
    reader.end()
    return asked


def _without_background(prompt: str) -> tuple[str, str | None]:
    """The prompt in plain words, and the background that they asked for."""
    text = " ".join(re.sub(r"[^\w\s,-]|_|\bplease\b", " ", prompt.lower()).split())
    text = re.sub(r" of the (?:picture|image|canvas)\b", "", text)
    text = re.sub(r"\b(?!medium-sized)(\w+)-(?=\w)", r"\1 ", text)
    background = None
    if ground := _GROUND.search(text):  # before the commas go: "on black, squares"
        name = ground["named"] or ground["bare"]
        if name not in _GROUNDS:
            raise InputError(
                f"The prompt {prompt!r} asks for a {name} background; there are "
                f"{', '.join(BACKGROUNDS)}."
            )
        background = _GROUNDS[name]
        text = f"{text[: ground.start()]}{text[ground.end() :]}"
    return " ".join(text.replace(",", " ").split()), background


class _Cursor:
    """A place in a text, and what can be taken from there."""

    def __init__(self, text: str, prompt: str) -> None:
        self.text, self.prompt, self.at = f"{text} ", prompt, 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def need(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = self.take(pattern)
        if not found:
            raise self.fault()
        return found

    def part(self) -> Part:
        found = self.need(_PART)
        noun, number = found["noun"], found["number"]
        shape = _NOUNS.get(noun) or _MANY[noun]
        count = None if noun in _MANY else 1
        if number and not (number == "the" and count is None):
            count = _NUMBERS[number]
        color = found["color"] or found["after"]
        return Part(
            count,
            found["size"] and _SIZES[found["size"]],
            color and _COLORS[color],
            None if shape == ANYTHING else shape,
            _place(found) if found["place"] else None,
        )

    def end(self) -> None:
        if self.text[self.at :].strip():
            raise self.fault()

    def fault(self) -> InputError:
        """What is wrong from here on: the first word that means nothing, or where it stops."""
        words = self.text[self.at :].split()
        strange = next((word for word in words if word not in _KNOWN), None)
        near = difflib.get_close_matches(strange or "", _KNOWN, n=1, cutoff=0.75)
        if strange:
            wrong = f"has the word '{strange}'"
        else:
            wrong = f"can't be read on from '{' '.join(words)}'" if words else "ends too early"
        hint = f"did you mean '{near[0]}'?" if near else _HINT
        return InputError(f"The prompt {self.prompt!r} {wrong}; {hint}")


_HINT = (
    f"say colours ({', '.join(COLORS)}), shapes ({', '.join(SHAPES)}) and how they lie "
    f"({', '.join(RELATION_WORDS)}), as in '{EXAMPLE}'."
)
_WORDS = (
    *(*_NOUNS, *_MANY, *_COLORS, *_SIZES, *_NUMBERS, *_RELATIONS, *_ROWS, *_MIDDLE),
    *("left", "right", "in", "at", "on", "and", "there", "is", "are", "that", "corner", "side"),
)
_KNOWN = sorted({part for word in _WORDS for part in word.split()})


def _relation(words: str) -> Relation:
    name = _RELATIONS[words]
    return next(each for each in RELATIONS if each == name)


def _place(found: re.Match[str]) -> str:
    row = _ROWS.get(found["row"] or "", "")
    column = found["column"] or found["side"] or ""
    name = f"{row} {column}".strip() or "center"
    assert name in PLACES
    return name
