from __future__ import annotations

from pathlib import Path

import pytest
import torch

from couette.config import spec
from couette.contracts import Ask
from couette.errors import InputError
from couette.figures import pictures, resolve, topics_for
from couette.figures.gradients import CLIMBS, climb, guided_walk, signed
from couette.generate import sampling_of
from couette.opening import classifier_for
from figures.conftest import trained


@pytest.fixture(scope="module")
def classifier(runs: Path) -> Path:
    """Of the same digits as `digits`, after eight steps."""
    return trained(
        runs / "classifier",
        "classifier",
        {"steps": 8},
        data={"source": "digits", "limit": 40},
        network="encoder:width=8",
    )


def test_draws_gradients_and_ascent_beside_guidance(digits: Path, classifier: Path) -> None:
    given = {"classifier": str(classifier), "rows": 2, "steps": 2}
    made = pictures(resolve(str(digits)), "gradients", given)
    assert [each.name for each in made] == ["gradients", "ascent"]
    assert "guidance 3 by classifier" in made[1].notes[1]


def test_ascent_raises_the_probability_and_starts_from_noise(
    digits: Path, classifier: Path
) -> None:
    model = resolve(str(digits)).model
    classify = classifier_for(model, str(classifier))
    asked = [Ask(3), Ask(8)]
    walk = climb(model, classify, asked, seed=0)
    assert len(walk.pictures) == CLIMBS + 1
    assert bool((walk.chances[-1] > walk.chances[0]).all())
    sampling = sampling_of(model, guider=spec("classifier", run=str(classifier)), steps=2)
    guided = guided_walk(model, classify, asked, sampling, seed=0)
    assert len(guided.pictures) == len(guided.chances) == 2


def test_signs_are_colours() -> None:
    """Red above 0, blue below, white at 0; each picture by its own largest value."""
    values = torch.tensor([[2.0, -2.0, 0.0, 1.0], [20.0, 0.0, 0.0, -10.0]]).reshape(2, 1, 1, 4)
    red, blue, white = [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]
    first, second = signed(values)[:, :, 0].transpose(1, 2).tolist()
    assert first == [red, blue, white, [1.0, 0.0, 0.0]]
    assert second == [red, white, white, [0.0, 0.0, 1.0]]


def test_needs_a_classifier_and_a_model(digits: Path, classifier: Path) -> None:
    with pytest.raises(InputError, match="--recipe classifier"):
        pictures(resolve(str(digits)), "gradients")
    with pytest.raises(InputError, match="is a classifier: show the 'gradients' of a model"):
        pictures(resolve(str(classifier)), "gradients", {"classifier": str(classifier)})
    assert "sheet" not in topics_for(resolve(str(classifier)))
    assert "loss" in topics_for(resolve(str(classifier)))
