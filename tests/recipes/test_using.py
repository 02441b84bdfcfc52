"""What a run says is to be typed next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from couette.recipes.using import commands
from recipes.test_text import folder, prepared


@pytest.mark.parametrize(
    ("captions", "prompt"),
    [
        (("", "a fox's den"), "a fox's den"),
        (("one\ntwo",), "one two"),
        (("a word " * 10,), "a word a word a word a word a word a word a word a word a"),
        (("円" * 90,), "円" * 60),
    ],
    ids=["quotes", "lines", "many words", "one long word"],
)
def test_the_prompt_is_a_caption(tmp_path: Path, captions: tuple[str, ...], prompt: str) -> None:
    """In quotes, of one line, and not long."""
    run = prepared(tmp_path, folder(tmp_path / "data", captions, count=4))
    sample, *_ = map(shlex.split, commands(run))
    assert sample[-2:] == ["--prompt", prompt]
