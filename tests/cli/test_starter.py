"""The model that comes with Couette: drawn with, replayed and edited by its name alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.shell import Shell
from couette import api
from couette.evaluation.following import following
from couette.places import STARTER, packaged
from couette.runs import find_model

MOST = 12_000_000
"""Bytes that it may add to the package."""


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_it_is_small_and_says_how_it_was_made() -> None:
    folder = find_model(Path(STARTER))
    files = [each for each in folder.iterdir() if each.is_file()]
    assert sum(each.stat().st_size for each in files) <= MOST
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "couette train shapes" in card and "couette eval starter" in card


def test_it_draws_what_it_is_asked_for() -> None:
    """Of a colour and a shape that were never shown together; docs/results.md has more."""
    (found,) = following(api.load(STARTER), count=8, kinds=("held-out",)).values()
    assert found["both"].share > 0.8


def test_its_pictures_go_beside_it_and_are_drawn_again(shell: Shell, tmp_path: Path) -> None:
    words = ("--prompt", "a red circle", "--count", "1", "--steps", "2")
    shell("sample", "starter", *words)
    (path,) = (tmp_path / "starter" / "pictures").glob("*.png")
    # A folder of that name, without a model in it, is in nobody's way.
    shell("replay", str(path), "--out", "again.png")
    assert (pixels(path) == pixels(tmp_path / "again.png")).all()
    shell(
        "edit",
        "starter",
        "img2img",
        str(path),
        "--prompt",
        "a blue star",
        "--count",
        "1",
        "--steps",
        "2",
        "--out",
        "edited.png",
    )
    assert pixels(tmp_path / "edited.png").shape[2] == 3


def test_a_run_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert packaged("starter") is not None
    assert packaged("./starter") is not None and packaged("starter/more") is None
    (tmp_path / STARTER).mkdir()
    assert packaged("starter") is not None
    (tmp_path / STARTER / "config.yaml").touch()
    assert packaged("starter") is None
