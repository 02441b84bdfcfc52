"""Verdicts: what of a prompt a picture fulfils, worked out by hand."""

from __future__ import annotations

from itertools import permutations

import pytest

from couette.data.shapes import Reading, Seen, Verdict, judge, tally
from couette.errors import InputError


def seen(color: str | None, shape: str | None, x: float, y: float, size: str = "medium") -> Seen:
    return Seen(shape, color, size, x, y, 0.158, 0.99)


def picture(*objects: Seen, background: str = "white") -> Reading:
    return Reading(background, objects)


RED_CIRCLE = seen("red", "circle", 0.5, 0.25)
BLUE_SQUARE = seen("blue", "square", 0.5, 0.75)
BOTH = picture(RED_CIRCLE, BLUE_SQUARE)


@pytest.mark.parametrize(
    ("prompt", "reading", "verdict"),
    [
        (
            "a red circle",
            picture(RED_CIRCLE),
            Verdict(color=True, shape=True, both=True, number=True),
        ),
        ("a red circle", BOTH, Verdict(color=True, shape=True, both=True, number=False)),
        (
            "a red square",
            picture(RED_CIRCLE),
            Verdict(color=True, shape=False, both=False, number=True),
        ),
        (
            "a blue ring",
            picture(RED_CIRCLE),
            Verdict(color=False, shape=False, both=False, number=True),
        ),
        ("a blue circle", BOTH, Verdict(color=True, shape=True, both=False, number=False)),
        ("a circle", picture(RED_CIRCLE), Verdict(shape=True, both=True, number=True)),
        ("a red shape", picture(RED_CIRCLE), Verdict(color=True, both=True, number=True)),
        ("a red circle", picture(), Verdict(color=False, shape=False, both=False, number=False)),
        (
            "a red circle above a blue square",
            BOTH,
            Verdict(color=True, shape=True, both=True, number=True, relation=True),
        ),
        (
            "a blue square above a red circle",
            BOTH,
            Verdict(color=True, shape=True, both=True, number=True, relation=False),
        ),
        (
            "a red square above a blue circle",  # the colours are on the wrong shapes
            BOTH,
            Verdict(color=True, shape=True, both=False, number=True, relation=False),
        ),
        (
            "a red circle and a blue square",
            picture(RED_CIRCLE),
            Verdict(color=False, shape=False, both=False, number=False),
        ),
        (
            "two red circles",
            picture(RED_CIRCLE, seen("red", "circle", 0.2, 0.8)),
            Verdict(color=True, shape=True, both=True, number=True),
        ),
        (
            "three red circles",
            picture(RED_CIRCLE, seen("red", "circle", 0.2, 0.8)),
            Verdict(color=True, shape=True, both=True, number=False),
        ),
        ("two red circles", BOTH, Verdict(color=False, shape=False, both=False, number=True)),
        (
            "red circles",
            picture(RED_CIRCLE),
            Verdict(color=True, shape=True, both=True, number=False),
        ),
        (
            "red circles",
            picture(RED_CIRCLE, RED_CIRCLE, RED_CIRCLE),
            Verdict(color=True, shape=True, both=True, number=True),
        ),
        (
            "two red circles above a blue square",
            picture(RED_CIRCLE, seen("red", "circle", 0.4, 0.2), BLUE_SQUARE),
            Verdict(color=True, shape=True, both=True, number=True, relation=True),
        ),
        (
            "a small red circle in the top left on a black background",
            picture(seen("red", "circle", 0.2, 0.2, "large"), background="black"),
            Verdict(True, True, True, True, None, size=False, place=True, background=True),
        ),
        (
            "a red circle at the top on gray",
            picture(seen("red", "circle", 0.5, 0.7)),
            Verdict(True, True, True, True, place=False, background=False),
        ),
        (
            "a red circle",
            picture(seen(None, None, 0.5, 0.5)),
            Verdict(color=False, shape=False, both=False, number=True),
        ),
    ],
)
def test_verdicts(prompt: str, reading: Reading, verdict: Verdict) -> None:
    assert judge(prompt, reading) == verdict
    right = all(each is not False for each in verdict)
    assert verdict.right == right


def test_the_objects_that_fit_best_are_taken() -> None:
    """Of two red circles the one above the square is meant, whatever the order."""
    below = seen("red", "circle", 0.5, 0.95)
    for objects in ((RED_CIRCLE, BLUE_SQUARE, below), (below, BLUE_SQUARE, RED_CIRCLE)):
        verdict = judge("a red circle above a blue square", picture(*objects))
        assert verdict.relation
        assert not verdict.number


def test_the_order_of_what_was_read_makes_no_difference() -> None:
    objects = (RED_CIRCLE, BLUE_SQUARE, seen("red", "square", 0.2, 0.5), seen(None, None, 0.8, 0.5))
    for prompt in ("a red square above a blue circle", "two red circles", "a blue ring", "squares"):
        found = {judge(prompt, picture(*order)) for order in permutations(objects)}
        assert len(found) == 1, prompt


def test_many_objects_are_judged_too() -> None:
    crowd = [seen("green", "star", i / 40, 0.5) for i in range(40)]
    verdict = judge("a red circle above a blue square", picture(*crowd, RED_CIRCLE, BLUE_SQUARE))
    assert (verdict.both, verdict.relation, verdict.number) == (True, True, False)


def test_a_tally_counts_what_was_asked() -> None:
    verdicts = [
        judge("a red circle above a blue square", BOTH),
        judge("a blue square above a red circle", BOTH),
        judge("a red circle", BOTH),
    ]
    found = tally(verdicts)
    assert found == {
        "color": (3, 3),
        "shape": (3, 3),
        "both": (3, 3),
        "number": (2, 3),
        "relation": (1, 2),
        "right": (1, 3),
    }
    assert found["relation"].share == 0.5
    assert tally([]) == {}


def test_a_prompt_that_is_not_understood_is_refused() -> None:
    with pytest.raises(InputError, match="'elephant'"):
        judge("an elephant", BOTH)
