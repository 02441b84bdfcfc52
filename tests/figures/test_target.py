from pathlib import Path

import pytest

from couette.errors import ConfigError, InputError, UnknownName
from couette.figures import FIGURES, NEEDS, pictures, resolve, topics_for
from couette.recipes import fit
from small_runs import saved


def test_a_run_is_known_by_its_folder(digits: Path) -> None:
    target = resolve(str(digits))
    assert (target.kind, target.name) == ("run", "digits")
    assert target.model.config.recipe == "digits"
    assert not target.points


def test_a_checkpoint_is_its_run_at_that_step(digits: Path) -> None:
    checkpoint = sorted((digits / "checkpoints").iterdir())[0]
    target = resolve(str(checkpoint))
    assert target.kind == "run"
    assert target.name == "digits"
    assert target.weights == checkpoint


def test_a_saved_model_by_itself_has_no_log(digits: Path, tmp_path: Path) -> None:
    target = resolve(str(saved(digits, tmp_path / "model")))
    assert target.kind == "model"
    assert "sheet" in topics_for(target)
    assert "loss" not in topics_for(target)


def test_a_name_of_both_means_the_recipe_with_its_data() -> None:
    assert resolve("digits").kind == "recipe"
    assert resolve("moons").kind == "data"
    assert resolve("course-basic", data="digits").splits.train.height == 16


def test_the_nearest_run_recipe_or_data_set_is_named(digits: Path) -> None:
    with pytest.raises(UnknownName, match=f"did you mean '{digits}'"):
        resolve(str(digits.parent / "digist"))
    with pytest.raises(UnknownName, match="did you mean 'course-basic'"):
        resolve("cource-basic")
    with pytest.raises(UnknownName, match="did you mean 'moons'"):
        resolve("mons")


@pytest.mark.parametrize(
    ("given", "topic", "said"),
    [
        (None, "loss", "'loss' needs a run; give the folder that `couette train` printed."),
        ("digits", "sheet", "'sheet' needs a trained model"),
        (None, "noising", "'noising' needs pictures; give a run, a data set or a recipe."),
        ("moons", "noising", "'noising' draws pictures, and the data set 'moons' is about points"),
        ("digits", "dye", "'dye' draws points in the plane"),
        ("moons", "network", "'network' needs a network; give a run or a recipe."),
    ],
)
def test_a_figure_says_what_it_needs(given: str | None, topic: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        pictures(resolve(given), topic)
    assert str(caught.value).startswith(said)


def test_a_one_step_denoiser_does_not_sample(denoiser: Path) -> None:
    target = resolve(str(denoiser))
    with pytest.raises(InputError, match="one-step denoiser: show its 'sigmas'"):
        pictures(target, "sheet")
    assert topics_for(target, usual=True) == ["loss", "predictions", "sigmas"]


def test_topics_fit_their_target(digits: Path, moons: Path) -> None:
    assert topics_for(resolve(None), usual=True) == ["noise", "random-variables", "schedule"]
    usual = topics_for(resolve(str(digits)), usual=True)
    assert usual == ["loss", "predictions", "sheet", "reverse", "real"]
    assert topics_for(resolve(str(moons)), usual=True) == ["loss", "dye"]
    assert set(topics_for(resolve("moons"))) == {"dye", "schedule", "weights"}


def test_every_figure_states_its_needs_and_has_a_summary() -> None:
    assert set(NEEDS) == set(FIGURES)
    assert all(FIGURES.summary(topic) for topic in FIGURES)
    assert all(FIGURES.settings(topic) for topic in FIGURES)


def test_an_unknown_topic_or_setting_names_the_nearest() -> None:
    target = resolve("digits")
    with pytest.raises(UnknownName, match="did you mean 'noising'"):
        pictures(target, "noisng")
    with pytest.raises(ConfigError, match="did you mean 'columns'"):
        pictures(target, "noising", {"colums": 3})


def test_a_recipe_without_a_size_of_its_own_is_fitted_or_says_so() -> None:
    with pytest.raises(InputError, match="sizes its network from the data"):
        pictures(resolve("digits"), "network")
    network, sizes = resolve("digits", fit=fit).network
    assert sizes == (1, 16, 16, 10, None, None)
    assert sum(p.numel() for p in network.parameters()) > 100_000
