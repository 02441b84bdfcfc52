"""Whether a picture shows what was asked, attribute by attribute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from couette.data.shapes.asking import Asked, Part
from couette.data.shapes.parsing import understood
from couette.data.shapes.reading import Reading, Seen
from couette.data.shapes.scenes import at_place, relation

_CONSIDERED = 8
"""So many objects of a picture are looked at for what was asked; with more the count is wrong."""


class Verdict(NamedTuple):
    """What is right in a picture; None where it was not asked.

    color: what is there has the colours that were asked for, whatever its shapes.
    shape: it has the shapes, whatever their colours.
    both: each kind that was asked for is there in its own colour and its own shape.
    number: as many objects as were asked for, and no other.
    relation: both kinds are there, and the first lies to the second as asked.
    size, place, background: as asked.
    """

    color: bool | None = None
    shape: bool | None = None
    both: bool | None = None
    number: bool | None = None
    relation: bool | None = None
    size: bool | None = None
    place: bool | None = None
    background: bool | None = None

    @property
    def right(self) -> bool:
        """Whether all that was asked is right."""
        return False not in self


class Tally(NamedTuple):
    """How many of the pictures that were asked for something are right in it."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked


_Group = tuple[Seen, ...]


def judge(asked: Asked | str, reading: Reading) -> Verdict:
    """Compare what was read from a picture with what was asked.

    Where several objects could be meant, those are taken that make most of it right. Colours and
    shapes are looked for apart: a blue circle and a red square have both colours and both shapes of
    "a red circle and a blue square", but not `both`.

    Args:
        asked: as `understood`, or a prompt in words.
        reading: what the reader saw.

    Raises:
        InputError: a prompt that can't be understood.
    """
    if isinstance(asked, str):
        asked = understood(asked)
    verdicts = [_verdict(asked, reading, groups) for groups in _groups(asked, reading.objects)]
    best = max(verdicts, key=_merit)
    return best._replace(
        color=None if best.color is None else any(each.color for each in verdicts),
        shape=None if best.shape is None else any(each.shape for each in verdicts),
    )


def tally(verdicts: Iterable[Verdict]) -> dict[str, Tally]:
    """How often each attribute is right, by its name; "right" is all that was asked.

    Attributes that were never asked are left out.
    """
    rows = list(verdicts)
    counts = {}
    for index, name in enumerate(Verdict._fields):
        told = [row[index] for row in rows if row[index] is not None]
        if told:
            counts[name] = Tally(sum(map(bool, told)), len(told))
    if rows:
        counts["right"] = Tally(sum(row.right for row in rows), len(rows))
    return counts


def _merit(verdict: Verdict) -> tuple[int, ...]:
    """What counts first: objects as asked, then how they lie, then the rest."""
    first = (verdict.both, verdict.color, verdict.shape)
    then = (verdict.relation, verdict.place, verdict.size)
    return sum(map(bool, first)), *(int(bool(each)) for each in then)


def _groups(asked: Asked, seen: Sequence[Seen]) -> Iterator[tuple[_Group, ...]]:
    """Ways to say which objects are meant by which part: one group of objects for each."""
    first, *rest = asked.parts
    best = sorted(seen, key=lambda each: -max(_fit(part, each) for part in asked.parts))
    best = best[:_CONSIDERED]
    room = len(best) - 1 if rest and len(best) > 1 else len(best)  # one is left for the other part
    for chosen in combinations(range(len(best)), min(_number(first, best), room)):
        group = tuple(best[i] for i in chosen)
        if not rest:
            yield (group,)
            continue
        others = [each for i, each in enumerate(best) if i not in chosen]
        for other in combinations(others, min(_number(rest[0], others), len(others))):
            yield group, other


def _number(part: Part, seen: Sequence[Seen]) -> int:
    """How many objects a part takes: what it says, or for "circles" all that look like it."""
    if part.number is not None:
        return part.number
    return max(sum(_fit(part, each) >= 2 for each in seen), 1)


def _fit(part: Part, seen: Seen) -> float:
    """How much of what a part says is so; colour and shape count most."""
    told = part.color in (None, seen.color), part.shape in (None, seen.shape)
    placed = part.place is None or at_place(seen, part.place)
    return sum(told) + 0.1 * (part.size in (None, seen.size)) + 0.1 * placed


def _verdict(asked: Asked, reading: Reading, groups: tuple[_Group, ...]) -> Verdict:
    def each(name: str, holds: Callable[[Seen, str], bool]) -> bool | None:
        """Whether what the parts say of `name` holds for all of their objects; None if nothing."""
        told = [
            (getattr(part, name), group)
            for part, group in zip(asked.parts, groups, strict=True)
            if getattr(part, name)
        ]
        if not told:
            return None
        return all(group and all(holds(one, said) for one in group) for said, group in told)

    color = each("color", lambda one, said: one.color == said)
    shape = each("shape", lambda one, said: one.shape == said)
    both = all(groups) and color is not False and shape is not False
    lies = ground = None
    if asked.relation:
        first, second = groups
        lies = both and all(relation(a, b) == asked.relation for a in first for b in second)
    if asked.background:
        ground = reading.background == asked.background
    return Verdict(
        color,
        shape,
        both,
        _counted(asked, reading),
        lies,
        each("size", lambda one, said: one.size == said),
        each("place", at_place),
        ground,
    )


def _counted(asked: Asked, reading: Reading) -> bool:
    least = sum(2 if part.number is None else part.number for part in asked.parts)
    there = len(reading.objects)
    return there >= least if any(p.number is None for p in asked.parts) else there == least
