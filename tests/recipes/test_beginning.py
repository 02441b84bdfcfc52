"""A run that begins with another's weights: what fits is taken, what can't be used is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from couette.config import AutoencoderConfig, spec
from couette.errors import CheckpointError, ConfigError
from couette.model import TOKENIZER, read_config
from couette.opening import open_model
from couette.recipes.beginning import take_weights
from couette.runs import RunFolder, find_model
from couette.storage import read_tensors, write_json
from small_runs import Settings, losses, session

SMALL = spec("unet", size="tiny", width=16)
DIGITS: Settings = {
    "data": {"source": "digits", "limit": 40},
    "network": SMALL,
    "training": {"batch": 16, "warmup": 0, "average": 0},
}
SHAPES: Settings = {
    "data": {"source": "shapes", "limit": 40, "resolution": 16},
    "text": {"encoder": "learned", "vocabulary": 300},
    "network": SMALL,
    "training": {"batch": 16, "average": 0},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    losses(session(out, DIGITS, length={"steps": 2}))
    return out


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    losses(session(out, SHAPES, length={"steps": 2}))
    return out


def begun(out: Path, settings: Settings, init: Path, **training: object) -> Settings:
    return {**settings, "training": {**settings["training"], "init": str(init), **training}}


def test_it_begins_where_the_other_ended(digits: Path, tmp_path: Path) -> None:
    """Its network, too, is the other's where none is named."""
    settings = {name: value for name, value in DIGITS.items() if name != "network"}
    run = session(tmp_path / "run", begun(tmp_path, settings, digits), length={"steps": 1})
    there = read_tensors(find_model(digits) / "network.safetensors")
    for name, value in run.models["weights"].network.state_dict().items():
        assert value.equal(there[name])
    note = next(line for line in run.notes() if "begins with" in line)
    assert str(digits) in note and "anew" not in note


def test_what_does_not_fit_begins_anew(digits: Path, tmp_path: Path) -> None:
    """Here the embedding of classes that the other did not have."""
    other = {**DIGITS, "data": {"source": "digits", "limit": 40}, "diffusion": {"drop": 1.0}}
    losses(session(tmp_path / "other", other, length={"steps": 1}))
    run = session(
        tmp_path / "run", begun(tmp_path, DIGITS, tmp_path / "other"), length={"steps": 1}
    )
    note = next(line for line in run.notes() if "begins with" in line)
    assert "embedding.label.weight begin anew" in note


def test_the_words_are_read_as_before(shapes: Path, tmp_path: Path) -> None:
    run = session(tmp_path / "run", begun(tmp_path, SHAPES, shapes), length={"steps": 1})
    losses(run)
    folder = find_model(tmp_path / "run")
    assert (folder / TOKENIZER).read_bytes() == (find_model(shapes) / TOKENIZER).read_bytes()


def test_resuming_needs_the_other_no_more(digits: Path, tmp_path: Path) -> None:
    init = tmp_path / "init"
    shutil.copytree(digits, init)
    settings = begun(tmp_path, DIGITS, init, save_every=1)
    whole = losses(session(tmp_path / "whole", settings, length={"steps": 4}))
    part = losses(session(tmp_path / "part", settings, length={"steps": 4}), stop_after=2)
    shutil.rmtree(init)
    rest = losses(session(tmp_path / "part", {}, resume=True))
    assert part | rest == whole


def test_a_moved_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run in"):
        session(tmp_path / "run", begun(tmp_path, DIGITS, tmp_path / "gone"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": spec("unet", size="tiny", width=32)}, "only .* are like those"),
        ({"network": "basic", "diffusion": {"drop": 1.0}}, "only .* are like those"),
        ({"diffusion": {"parameterization": "eps"}}, "trained with diffusion.parameterization"),
        ({"diffusion": {"schedule": "linear"}}, "trained with diffusion.schedule"),
        ({"objective": "classifier", "network": "encoder"}, "trained with objective diffusion"),
    ],
)
def test_what_is_no_use_is_refused(
    digits: Path, tmp_path: Path, settings: Settings, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        session(tmp_path / "run", begun(tmp_path, {**DIGITS, **settings}, digits))
    assert not (tmp_path / "run").exists()


def test_pictures_of_a_run_that_learns_nothing_more_are_the_others(
    digits: Path, tmp_path: Path
) -> None:
    settings = begun(tmp_path, DIGITS, digits, lr=1e-12, muon_lr=1e-12)
    losses(session(tmp_path / "run", settings, length={"steps": 1}))
    assert RunFolder(tmp_path / "run").newest() is not None
    models = [open_model(path) for path in (digits, tmp_path / "run")]
    x, told = torch.randn(2, 1, 16, 16), torch.zeros(2)
    cond = {"label": torch.tensor([1, 2])}
    with torch.no_grad():
        one, other = (model.network(x, told, cond) for model in models)
    torch.testing.assert_close(one, other)


def test_latents_of_another_autoencoder_are_refused(digits: Path, tmp_path: Path) -> None:
    """The same network, of the same kind of latents, that mean something else."""
    folder = find_model(digits)
    mine = read_config(folder)
    made = [
        AutoencoderConfig(network=spec("vae"), mean=(0.0,), scale=(1.0,), digest=digest * 64)
        for digest in "ab"
    ]
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    described = mine.model_copy(update={"autoencoder": made[0]})
    write_json(other / "model.json", described.model_dump(mode="json"))
    network = open_model(digits).network
    take_weights(network, described, other)
    with pytest.raises(ConfigError, match=r"another autoencoder .*a{10}, not b{10}\)"):
        take_weights(network, mine.model_copy(update={"autoencoder": made[1]}), other)
