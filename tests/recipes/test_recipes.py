"""Every recipe as it stands, on pictures of the size it is meant for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from couette.recipes import RECIPES
from small_runs import losses, session

BATCH = {"training": {"batch": 2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight gray pictures of 28 px in two classes, each with a caption."""
    rng = np.random.default_rng(0)
    for index in range(8):
        path = tmp_path / "data" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"a picture of {'ab'[index % 2]}", encoding="utf-8")
    return tmp_path / "data"


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_takes_a_step(recipe: str, folder: Path, tmp_path: Path) -> None:
    """Its own network, objective and optimizer, unchanged but for the batch."""
    source = {"points": "moons"}.get(recipe, str(folder))
    settings = {**BATCH, "data": {"source": source, "holdout": 0.25}}
    run = session(tmp_path / "run", settings, recipe=recipe, length={"steps": 3})
    found = losses(run, stop_after=1)
    assert np.isfinite(float.fromhex(found[1]))
