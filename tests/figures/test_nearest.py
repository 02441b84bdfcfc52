from pathlib import Path

import pytest
from PIL import Image

from couette.errors import DataError, InputError
from couette.figures import pictures, resolve, topics_for
from small_runs import saved


def test_a_memoriser_is_found_out() -> None:
    """The ideal denoiser of a few pictures draws nothing but them."""
    (shown,) = pictures(resolve("exact:digits"), "nearest", {"count": 4, "steps": 12})
    assert "4 of 4 count as copies" in shown.notes[1]


def test_a_model_after_few_steps_has_copied_nothing(digits: Path) -> None:
    settings = {"count": 3, "neighbours": 2, "label": "7", "steps": 2}
    (shown,) = pictures(resolve(str(digits)), "nearest", settings)
    assert "0 of 3 count as copies" in shown.notes[1]
    assert "rests on little" in shown.notes[2] and "made from 2 held-out" in shown.notes[2]
    more = pictures(resolve(str(digits)), "nearest", {**settings, "neighbours": 4})[0]
    assert more.image.width > 1.4 * shown.image.width


def test_a_saved_model_is_shown_with_data_that_are_named(digits: Path, tmp_path: Path) -> None:
    alone = saved(digits, tmp_path / "model")
    with pytest.raises(InputError, match="name them with --data"):
        pictures(resolve(str(alone)), "nearest")
    # Other data are brought to the model's size.
    target = resolve(str(alone), data="digits")
    assert {"nearest", "predictions", "real"} <= set(topics_for(target))
    assert target.splits.train.height == target.model.config.height
    assert len(pictures(target, "nearest", {"count": 2, "steps": 2})) == 1


def test_the_packages_own_knows_its_data() -> None:
    target = resolve("starter")
    assert (target.has_data, target.config.data.source) == (True, "shapes")


def test_other_data_are_brought_to_the_size_and_colour_of_a_run(
    digits: Path, tmp_path: Path
) -> None:
    for i in range(3):
        Image.new("RGB", (40, 30), (9 * i, 80, 0)).save(tmp_path / f"{i}.png")
    target = resolve(str(digits), data=str(tmp_path))
    data, config = target.splits.train, target.model.config
    assert (data.channels, data.height) == (1, 16) == (config.channels, config.height)


def test_without_held_out_pictures_nothing_is_drawn(digits: Path, tmp_path: Path) -> None:
    for i in range(2):
        Image.new("L", (16, 16), 9 * i).save(tmp_path / f"{i}.png")
    target = resolve(str(digits), data=str(tmp_path))
    with pytest.raises(DataError, match="no pictures kept for evaluation"):
        pictures(target, "nearest", {"count": 2, "steps": 2})
