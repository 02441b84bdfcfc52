"""Captions are true of their scenes, and read back as what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couette.data.shapes import (
    COLORS,
    HELD_OUT,
    KINDS,
    SHAPES,
    SIZES,
    Asked,
    Part,
    captions,
    compose,
    judge,
    prompts,
    understood,
)
from couette.data.shapes.dice import Dice, dice
from couette.data.shapes.reading import seen_exactly
from couette.data.shapes.vocabulary import BACKGROUNDS, PLACES, RELATIONS
from couette.data.shapes.wording import RELATION_WORDS, SIZE_WORDS, say
from couette.errors import ConfigError, InputError, UnknownName

COUNT = 3000


def maybe(names: object) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(sorted(names))  # type: ignore[call-overload]


PARTS = st.builds(
    Part,
    number=st.none() | st.integers(1, 10),
    size=maybe(SIZES),
    color=maybe(COLORS),
    shape=maybe(SHAPES),
    place=maybe(PLACES),
)
ASKED = st.builds(
    lambda parts, relation, background: Asked(
        tuple(parts), relation if len(parts) == 2 else None, background
    ),
    st.lists(PARTS, min_size=1, max_size=2),
    st.none() | st.sampled_from(RELATIONS),
    maybe(BACKGROUNDS),
)
WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=24, max_size=24)


@given(ASKED, WORDS)
def test_whatever_is_said_is_understood(asked: Asked, words: list[int]) -> None:
    said = say(asked, Dice(words))
    assert understood(said) == asked
    assert understood(f"  {said.upper()}. ") == asked


@pytest.mark.parametrize("wording", [0, 1])
def test_captions_are_true(wording: int) -> None:
    made = list(compose(range(COUNT)))
    for scene, text in zip(made, captions(made, range(COUNT), wording=wording), strict=True):
        verdict = judge(text, seen_exactly(scene))
        assert verdict.right, (text, scene, verdict)


def test_captions_are_of_another_scene_rarely_true() -> None:
    """What `test_captions_are_true` would miss if captions said nothing."""
    made = list(compose(range(COUNT)))
    texts = list(captions(made, range(COUNT)))
    right = sum(
        judge(text, seen_exactly(scene)).right
        for scene, text in zip(made, texts[1:] + texts[:1], strict=True)
    )
    assert right < 0.01 * COUNT


def test_captions_are_varied_and_the_same_for_the_same_integers() -> None:
    made = list(compose(range(COUNT)))
    texts = list(captions(made, range(COUNT)))
    assert texts[500:510] == list(captions(made[500:510], range(500, 510)))
    assert len(set(texts)) > 0.75 * COUNT
    assert sum(map(str.__eq__, texts, captions(made, range(COUNT), wording=1))) < 0.2 * COUNT
    every = " ".join(texts)
    used = [word for words in (*RELATION_WORDS.values(), *SIZE_WORDS.values()) for word, _ in words]
    for word in (*used, *COLORS, *SHAPES, *BACKGROUNDS, "3", "four", "there is", "that are"):
        assert f" {word}" in every, word


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (
            "A red circle above a blue square.",
            Asked((Part(1, None, "red", "circle"), Part(1, None, "blue", "square")), "above"),
        ),
        (
            "the big green disc on top of two tiny turquoise boxes",
            Asked(
                (Part(1, "large", "green", "circle"), Part(2, "small", "cyan", "square")), "above"
            ),
        ),
        (
            "please draw a star in the upper-left corner of the picture, on a grey background",
            Asked((Part(1, None, None, "star", "top left"),), None, "gray"),
        ),
        (
            "to the left of a heart is a ring",
            Asked((Part(1, None, None, "ring"), Part(1, None, None, "heart")), "left of"),
        ),
        ("red crosses on black", Asked((Part(None, None, "red", "cross"),), None, "black")),
        ("a pair of diamonds", Asked((Part(2, None, None, "diamond"),))),
        (
            "a cross on the left of a star",
            Asked((Part(1, None, None, "cross"), Part(1, None, None, "star")), "left of"),
        ),
        ("a cross on the left", Asked((Part(1, None, None, "cross", "left"),))),
    ],
)
def test_what_people_write(prompt: str, asked: Asked) -> None:
    assert understood(prompt) == asked


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("two red circels", "has the word 'circels'; did you mean 'circle"),
        ("a dog", r"has the word 'dog'; say colours \(red, "),
        ("", "ends too early"),
        ("a red circle and", "ends too early"),
        ("a red", "can't be read on from 'a red'"),
        ("a circle above", "can't be read on from 'above'|ends too early"),
        ("a circle a square", "can't be read on from 'a square'"),
        ("a circle on a red background", "asks for a red background; there are white, gray"),
    ],
)
def test_what_is_not_understood(prompt: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        understood(prompt)


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        asked = understood(text)
    except InputError:
        return
    assert asked.parts


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_ask_for_what_their_kind_says(kind: str) -> None:
    found = prompts(kind, 400)
    assert found[:50] == prompts(kind, 50)
    assert found[:50] != prompts(kind, 50, seed=1)
    for prompt in found:
        assert understood(prompt.text) == prompt.asked
        assert judge(prompt.asked, seen_exactly(prompt.scene)).right
        assert len(prompt.asked.pairs) == len(prompt.asked.parts)  # each with colour and shape
        assert (set(prompt.asked.pairs) <= HELD_OUT) == (kind == "held-out")
    numbers = {tuple(part.number for part in prompt.asked.parts) for prompt in found}
    several = {(2,), (3,), (4,)}
    assert numbers == {
        "seen": {(1,), (1, 1)} | several,
        "two": {(1, 1)},
        "relation": {(1, 1)},
        "count": several,
    }.get(kind, {(1,)})
    related = sum(prompt.asked.relation is not None for prompt in found)
    assert (related == 400) == (kind == "relation")
    if kind == "held-out":
        assert {pair for prompt in found for pair in prompt.asked.pairs} == HELD_OUT


def test_prompts_that_can_not_be_had() -> None:
    with pytest.raises(UnknownName, match="no kind of prompt 'heldout'; did you mean 'held-out'"):
        prompts("heldout", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="-1 prompts"):
        prompts("seen", -1)


def test_dice() -> None:
    rolls = list(dice(0, range(20_000), 0, 7, 4))
    picked = [roll.pick("abcd") for roll in rolls]
    assert all(abs(picked.count(letter) - 5000) < 250 for letter in "abcd")
    assert abs(sum(roll.chance(0.3) for roll in rolls) - 6000) < 260
    weighed = [roll.weighed((("x", 0.1), ("y", 0.9))) for roll in rolls]
    assert abs(weighed.count("x") - 2000) < 180
