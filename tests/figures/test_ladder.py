"""A picture noised and denoised in three ways, and prompts against steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from couette.contracts import Ask
from couette.data import to_float
from couette.errors import DataError, InputError
from couette.evaluation.reconstruction import peak_ratio
from couette.exact import named
from couette.figures import FIGURES, resolve
from couette.figures.asked import walk_of
from couette.figures.ladder import Rung, _when
from couette.model import exact_model
from couette.schedules import log_snr
from couette.schedules.tables import Linear


@pytest.mark.parametrize("schedule", ["edm", "flow", "linear", "cosine"])
def test_times_are_those_of_ddpms_noise(schedule: str) -> None:
    model = exact_model(named(f"exact:digits:resolution=8,limit=50,schedule={schedule}"))
    own = model.denoiser.corruption.schedule
    t = torch.tensor([0.0, 0.125, 0.5, 0.875], dtype=torch.float64)
    found = _when(model, t)
    assert float(found[0]) == 0
    if schedule != "linear":
        torch.testing.assert_close(log_snr(own.level(found[1:])), log_snr(Linear().level(t[1:])))
    else:
        assert torch.equal(found, t)


def test_a_model_beats_a_blur_and_steps_beat_one_in_sharpness() -> None:
    """The ideal denoiser finds the very digit at moderate noise; one step at much noise is a mean
    of many digits, many steps end at one."""
    model = exact_model(named("exact:digits:resolution=8,limit=300"))
    known, data = named("exact:digits:resolution=8,limit=300").open()
    del known
    original = to_float(data.pictures(torch.tensor([3])))
    sampling = walk_of(model)

    def rungs(t: float) -> tuple[torch.Tensor, ...]:
        return Rung(model, original, [Ask()], sampling, 0, 0.03).at(t)

    def near(x: torch.Tensor) -> float:
        return float(peak_ratio((x + 1) / 2, (original + 1) / 2))

    noisy, blurred, one, many = map(near, rungs(0.25))
    assert noisy < blurred < min(one, many)
    noisy, blurred, one, many = map(near, rungs(0.0))
    assert noisy == one == many == math.inf
    _, _, mean, sharp = rungs(0.875)
    gaps = (to_float(data.pictures(torch.arange(len(data)))) - sharp).abs().flatten(1).mean(1)
    assert float(gaps.min()) < 0.02
    gaps = (to_float(data.pictures(torch.arange(len(data)))) - mean).abs().flatten(1).mean(1)
    assert float(gaps.min()) > 0.1


def test_the_sheets_are_drawn(digits: Path, table: Path, tmp_path: Path) -> None:
    for run in (digits, table):
        ladder, strip = FIGURES["ladder"](resolve(str(run)), times=(0.0, 0.5), stride=0.25)
        assert ladder.image.width > 0 and strip.image.width > 0
        (sheet,) = FIGURES["counts"](resolve(str(run)), counts=(1, 2))
        assert sheet.image.height > 0
    Image.new("L", (40, 30), 99).save(tmp_path / "own.png")
    target = resolve(str(digits))
    FIGURES["ladder"](target, picture=str(tmp_path / "own.png"), times=(0.5,), stride=0.5)
    with pytest.raises(DataError, match="gone"):
        FIGURES["ladder"](target, picture=str(tmp_path / "gone.png"))


def test_a_saved_model_has_no_picture_of_its_own(digits: Path, tmp_path: Path) -> None:
    from couette import api

    api.export(digits, tmp_path / "alone")
    with pytest.raises(InputError, match="--picture FILE"):
        FIGURES["ladder"](resolve(str(tmp_path / "alone")))
