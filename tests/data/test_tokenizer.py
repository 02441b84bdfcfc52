"""Words as numbers: any text, the same numbers every time, nothing that text could smuggle in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couette.data.tokenizer import END, PAD, START, Tokenizer, same
from couette.errors import ConfigError

CAPTIONS = ["a red circle", "a blue square above a red circle", "two red circles"] * 3
LEARNED = Tokenizer.learned(CAPTIONS, 300)


def test_frequent_words_are_single_tokens() -> None:
    words = LEARNED.words("a red circle")
    assert words == [("a", (1,)), ("red", (2,)), ("circle", (3,))]


def test_rows_begin_end_and_are_padded() -> None:
    tokens = LEARNED(["a red circle", ""], 8)
    assert tokens.mask.sum(1).tolist() == [5, 2]
    assert tokens.ids[0, [0, 4, 5]].tolist() == [START, END, PAD]
    assert tokens.ids[1].tolist() == [START, END, *[PAD] * 6]
    assert tokens.cut == 0


def test_long_captions_are_cut_and_counted() -> None:
    tokens = LEARNED(["a red circle above a blue square", "a red circle", "red"], 5)
    assert tokens.cut == 1
    assert tokens.mask.all(1).tolist() == [True, True, False]
    assert tokens.ids[:2, -1].tolist() == [END, END]


def test_capitals_make_no_difference_and_learning_is_repeatable() -> None:
    again = Tokenizer.learned(CAPTIONS, 300)
    assert same(again, LEARNED) and same(Tokenizer(LEARNED.text), LEARNED)
    assert not same(Tokenizer.learned(["other words", "other words"], 300), LEARNED)
    one, other = (again([text], 9).ids.tolist() for text in ("A RED Circle", "a red circle"))
    assert one == other


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_any_text_has_numbers_below_the_size(text: str) -> None:
    """Emoji, other scripts, control characters; nothing becomes a special number inside."""
    tokens = LEARNED([text], LEARNED.longest([text]))
    ids = tokens.ids[0][tokens.mask[0]]
    assert ids[0] == START and ids[-1] == END
    inside = ids[1:-1]
    assert ((inside > END) & (inside < LEARNED.size)).all()


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30))
def test_words_cover_the_text_and_every_token_at_most_once(text: str) -> None:
    found = LEARNED.words(text)
    places = [place for _, those in found for place in those]
    assert len(places) == len(set(places))
    assert all(0 < place < LEARNED.longest([text]) - 1 for place in places)
    assert all(word.strip() == word and word for word, _ in found)


def test_an_emoji_is_one_word() -> None:
    assert [word for word, _ in LEARNED.words("a 🦊 red")] == ["a", "🦊", "red"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "not json", '{"model": {"type": "BPE", "vocab": {}, "merges": [["a","b"]]}}'],
)
def test_what_is_no_tokenizer(text: str) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        Tokenizer(text)


def test_numbers_beyond_the_size_are_refused() -> None:
    written = json.loads(LEARNED.text)
    vocabulary = written["model"]["vocab"]
    vocabulary["zzz"] = 10**6
    with pytest.raises(ConfigError, match="numbers a token 1000000"):
        Tokenizer(json.dumps(written))


def test_bad_sizes() -> None:
    with pytest.raises(ConfigError, match="no room for the 256 bytes"):
        Tokenizer.learned(CAPTIONS, 100)
    with pytest.raises(ConfigError, match="hold no word"):
        LEARNED(["a"], 2)
