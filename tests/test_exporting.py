"""A model by itself draws what its run draws, in half the bytes nearly so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from couette import api
from couette.cli import main
from couette.errors import CheckpointError, InputError
from couette.model import WEIGHTS, load_autoencoder, load_model
from couette.runs import find_model
from interop.saved_models import UNET2D, saved
from small_runs import losses, session

SETTINGS: dict[str, Any] = {
    "data": {"limit": 40},
    "network": "unet:size=tiny,width=16",
    "training": {"batch": 8},
    "sampling": {"steps": 3},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model on latents: one with everything that a model can have beside its network."""
    base = tmp_path_factory.mktemp("export")
    shapes = {**SETTINGS, "data": {"source": "shapes", "resolution": 16, "limit": 40}}
    latents = {**shapes, "network": "vae:factor=2,latent=3,width=16,blocks=1"}
    losses(session(base / "ae", latents, recipe="autoencoder", length={"steps": 2}))
    settings = {**shapes, "codec": f"latent:run={base / 'ae'}"}
    losses(session(base / "run", settings, recipe="text-to-pixels", length={"steps": 3}))
    return base / "run"


def drawn(path: Path) -> torch.Tensor:
    return api.sample(path, count=3, prompt="a red circle", seed=2, steps=2)


def test_it_draws_the_same(run: Path, tmp_path: Path) -> None:
    out = api.export(run, tmp_path / "model")
    assert torch.equal(drawn(out), drawn(run))
    names = {path.name for path in out.iterdir()}
    assert not any(name.startswith(("optimizer", "average", "state")) for name in names)
    raw = api.export(run, tmp_path / "raw", average=False)
    kept = load_file(find_model(run) / "network.safetensors")
    for name, value in load_file(raw / WEIGHTS).items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 5e-3), ("bfloat16", 5e-2)])
def test_half_the_bytes(run: Path, tmp_path: Path, dtype: Any, error: float) -> None:
    whole, half = (
        api.export(run, tmp_path / "whole"),
        api.export(run, tmp_path / "half", dtype=dtype),
    )
    sizes = [(path / WEIGHTS).stat().st_size for path in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert (
        load_model(half).network.state_dict().keys()
        == load_model(whole).network.state_dict().keys()
    )
    torch.testing.assert_close(drawn(half), drawn(whole), rtol=0, atol=error)


def test_it_draws_as_the_run_is_set_now(run: Path, tmp_path: Path) -> None:
    out = api.export(run, tmp_path / "model")
    assert load_model(out).config.sampling.steps == 3
    again = api.export(out, tmp_path / "again", dtype="float16")
    assert load_model(again).config == load_model(out).config


def test_it_keeps_the_card(run: Path, tmp_path: Path) -> None:
    out = api.export(run, tmp_path / "model")
    again = api.export(out, tmp_path / "again")
    cards = [(folder / "README.md").read_text(encoding="utf-8") for folder in (run, out, again)]
    assert cards[0] == cards[1] == cards[2]


def test_an_autoencoder_too(run: Path, tmp_path: Path) -> None:
    out = api.export(run.parent / "ae", tmp_path / "ae", dtype="float16")
    config, network = load_autoencoder(out)
    assert config.objective.name == "autoencoder"
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.slow
def test_another_average(tmp_path: Path) -> None:
    """Combined from two in all checkpoints, it is nearly the one that a run with it would keep."""
    settings = {**SETTINGS, "data": {"source": "digits", "limit": 40}}
    training = {"batch": 8, "average": 0.05, "second": 0.12, "save_every": 20, "keep": 20}
    run = session(tmp_path / "run", {**settings, "training": training}, length={"steps": 160})
    losses(run)
    other = {**settings, "training": {"batch": 8, "average": 0.08}}
    losses(session(tmp_path / "other", other, length={"steps": 160}))
    made = load_file(api.export(tmp_path / "run", tmp_path / "made", width=0.08) / WEIGHTS)
    exact = load_file(api.export(tmp_path / "other", tmp_path / "exact") / WEIGHTS)
    near = load_file(api.export(tmp_path / "run", tmp_path / "near") / WEIGHTS)

    def distance(weights: dict[str, torch.Tensor]) -> float:
        return float(sum((weights[name] - exact[name]).square().sum() for name in exact) ** 0.5)

    assert distance(made) < 0.1 * distance(near)
    api.sample(tmp_path / "made", count=1, steps=1)
    with pytest.raises(InputError, match=r"would miss an average of width 0.005 by \d+%"):
        api.export(tmp_path / "run", tmp_path / "far", width=0.005)
    with pytest.raises(InputError, match="has no second average"):
        api.export(tmp_path / "other", tmp_path / "none", width=0.08)
    resumed = session(tmp_path / "run", {}, resume=True, length={"steps": 162})
    assert len(losses(resumed)) == 2


def test_what_cannot_be(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="is there already"):
        api.export(run, tmp_path / "there")
    with pytest.raises(InputError, match="'float8' is no dtype of stored weights"):
        # A checker would refuse it; a script need not have one.
        api.export(run, tmp_path / "model", dtype="float8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="leave it out for the raw weights"):
        api.export(run, tmp_path / "model", average=False, width=0.08)
    with pytest.raises(InputError, match="no network 'unet'"):
        api.export(run, tmp_path / "model", format="diffusers")
    with pytest.raises(CheckpointError, match="holds an autoencoder"):
        api.export(run.parent / "ae", tmp_path / "model", format="diffusers")
    with pytest.raises(CheckpointError, match="no run in"):
        api.export(tmp_path / "nothing", tmp_path / "model")
    big = api.export(run, tmp_path / "big")
    weights = load_file(big / WEIGHTS)
    weights["enter.bias"] = weights["enter.bias"] + 1e6
    save_file(weights, big / WEIGHTS)
    with pytest.raises(InputError, match="beyond float16; give --dtype float32"):
        api.export(big, tmp_path / "model", dtype="float16")
    (big / WEIGHTS).write_bytes((big / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        api.export(big, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run), str(tmp_path / "model"), "--dtype", "float16", "--json"])
    assert stop.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["path"]) == tmp_path / "model"
    assert answer["bytes"] == sum(file.stat().st_size for file in Path(answer["path"]).iterdir())
    assert answer["notes"] == []


def test_the_command_for_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs there is said on stderr, or stands in the answer."""
    settings = {"diffusion": {"schedule": "cosine", "parameterization": "v", "told": "index"}}
    given = saved(tmp_path / "run", UNET2D, **settings)
    for name, flags in {"said": [], "json": ["--json"]}.items():
        with pytest.raises(SystemExit) as stop:
            main(["export", str(given), str(tmp_path / name), "--format", "diffusers", *flags])
        assert stop.value.code == 0
        out, err = capsys.readouterr()
        note = "The pipeline draws with DDIM; the run draws with heun"
        assert note in (err if name == "said" else json.loads(out)["notes"][0])
    size = sum(file.stat().st_size for file in (tmp_path / "json").rglob("*") if file.is_file())
    assert json.loads(out)["bytes"] == size
    with pytest.raises(SystemExit) as stop:
        main(["export", str(given), str(tmp_path / "one"), "--label", "3", "--format", "diffusers"])
    assert stop.value.code == 2
    assert "trained without labels" in capsys.readouterr().err
