"""The data set by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import open_data
from couette.data.shapes import Split, captions, compose, draw, drawn
from couette.errors import ConfigError, DataError


def test_the_scenes_are_drawn_with_their_captions() -> None:
    told: list[tuple[str, int, int]] = []
    train, test = open_data(
        DataConfig(source="shapes", limit=1500), lambda *done: told.append(done)
    )
    assert test is not None
    assert train.texts is not None
    assert train.sizes == Sizes(3, 32, 32, 0)
    made = list(compose(range(1500)))
    assert train.texts == tuple(captions(made, range(1500)))
    assert torch.equal(train.values[1490:], draw(made[1490:], 32))
    assert (len(train), len(test)) == (1500, 1500)
    assert test.texts != train.texts
    assert torch.equal(test.values[:3], draw(list(compose(range(3), split=Split.TEST)), 32))
    assert train.notes[0] == "1,500 pictures, 32×32 RGB, with captions"
    assert "green star" in train.notes[-1]
    assert told[-1] == ("drawing", 1500, 1500)


def test_a_smaller_set_is_the_beginning_of_a_larger_one() -> None:
    few, more = drawn(20, 64), drawn(1100, 64)
    assert few.texts is not None
    assert more.texts is not None
    assert torch.equal(few.values, more.values[:20])
    assert few.texts == more.texts[:20]
    assert drawn(20, 64, seed=1).fingerprint != few.fingerprint


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"resolution": 8}, ConfigError, "16 to 256 pixels, not 8"),
        ({"resolution": (32, 64)}, ConfigError, "in squares, not 64 wide × 32 high"),
        ({"flip": True}, ConfigError, "leave out --data.flip"),
        ({"crop": 2}, ConfigError, "leave out --data.flip and --data.crop"),
        ({"color": "gray"}, ConfigError, "leave out --data.color"),
        ({"limit": 1}, DataError, "two are needed"),
        ({"limit": 10_000_000}, ConfigError, r"need 30\.7 GB, more than the 4 of --data.memory-gb"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_data(DataConfig(source="shapes", **settings))
