"""When a picture is decided."""

from pathlib import Path

import pytest
import torch

from couette.config import spec
from couette.contracts import Ask
from couette.errors import InputError
from couette.figures import draw, pictures, resolve, topics_for
from couette.figures.likeness import correlation, distance, walk
from couette.generate import sampling_of

WORLD = "exact:digits:resolution=8,limit=200"


def test_an_exact_world_is_a_target() -> None:
    target = resolve(WORLD)
    assert (target.kind, target.points) == ("exact", False)
    assert target.described == f"the exact world '{WORLD}'"
    assert target.model.config.classes == tuple("0123456789")
    assert topics_for(target, usual=True) == ["likeness", "sheet", "reverse", "predictions"]
    assert "network" not in topics_for(target) and "loss" not in topics_for(target)
    assert "dye" in topics_for(resolve("exact:gaussians"), usual=True)


def test_of_a_memoriser_the_end_is_a_picture_and_the_way_there_is_not() -> None:
    """From α = 0 the first prediction is the mean of the set; the last ones are the end."""
    model = resolve(f"{WORLD},schedule=flow").model
    sampling = sampling_of(model, sampler=spec("ddim"), grid="uniform", steps=12)
    found = walk(model, [Ask()] * 8, sampling, 0)
    album = model.network.get_buffer("world.pictures").reshape(-1, 1, 8, 8)
    torch.testing.assert_close(found.predicted[0], album.mean(0).expand(8, -1, -1, -1))
    assert torch.cdist(found.end.flatten(1), album.flatten(1)).amin(1).max() < 0.02
    apart = distance(found.predicted, found.end).mean(1)
    assert float(apart[0]) > 0.4 and float(apart[-1]) < 1e-4
    assert found.level[0] == torch.inf and float(found.level[-1]) == pytest.approx(1 / 11)


def test_the_measures() -> None:
    a = torch.tensor([[0.0, 1.0], [1.0, 2.0]])[None]
    assert float(correlation(a, 3 * a - 1)) == pytest.approx(1)
    assert float(correlation(a, -a)) == pytest.approx(-1)
    assert float(correlation(a, torch.ones_like(a))) == 0
    assert float(distance(a, a + 0.5)) == pytest.approx(0.5)


def test_the_figure_draws_each_schedule_and_says_when(tmp_path: Path) -> None:
    settings = {"schedules": ("flow", "linear:steps=50"), "steps": 10, "count": 4}
    shown = draw(resolve(WORLD), "likeness", settings, tmp_path)
    names = ["likeness", "likeness-level", "likeness-distance", "likeness-pictures"]
    assert [each.path.stem for each in shown] == names
    assert [note.split(":")[0] for note in shown[0].notes[1:]] == ["flow", "linear"]
    assert "of 10 on, where σ/α = " in shown[0].notes[1]


def test_a_trained_model_is_walked_through_under_its_own_schedule(digits: Path) -> None:
    target = resolve(str(digits))
    made = pictures(target, "likeness", {"steps": 3, "count": 2})
    assert len(made) == 4
    with pytest.raises(InputError, match="leave out --schedules"):
        pictures(target, "likeness", {"schedules": ("flow",)})


def test_an_exact_world_shows_what_a_trained_model_shows() -> None:
    target = resolve(WORLD)
    for topic in ("sheet", "steps", "predictions"):
        assert pictures(target, topic, {"columns": 3} if topic == "predictions" else {"count": 4})
    made = pictures(resolve("exact:gaussians"), "dye", {"count": 100, "steps": 4, "frames": 4})
    assert [each.name for each in made][-2:] == ["reverse", "reverse-film"]
