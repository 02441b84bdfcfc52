"""A model written for diffusers draws there what it draws here, by what its own card says."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from couette import api
from couette.api.exporting import exported
from couette.errors import CheckpointError, InputError, UnknownName
from couette.generate.drawing import KeyedNoise
from couette.interop.to_diffusers import VERSION, WEIGHTS
from couette.model import load_model
from interop.saved_models import UNET2D, saved
from small_runs import losses, session

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy

SEED, COUNT = 5, 2
DRAWING = (
    "pipelines.ddpm.pipeline_ddpm",
    "pipelines.ddim.pipeline_ddim",
    "schedulers.scheduling_ddpm",
    "schedulers.scheduling_ddim",
)
"""Where theirs draws noise."""

TABLE = {"schedule": "linear:steps=40,beta_max=0.05", "parameterization": "v", "told": "index"}
DDIM = {"sampler": "ddim", "grid": "strided", "steps": 5}
FLOW = {"schedule": "flow", "parameterization": "flow", "told": "time"}
EULER = {"sampler": "euler", "grid": "uniform", "steps": 5}


def made(folder: Path, diffusion: Any = TABLE, sampling: Any = DDIM, **fields: Any) -> Path:
    return saved(folder, UNET2D, diffusion=diffusion, sampling=sampling, **fields)


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def called(folder: Path) -> dict[str, Any]:
    """How the card calls the pipeline."""
    line = re.search(r"^pictures = (pipeline\(.*\))\.images$", card(folder), re.MULTILINE)
    assert line
    call = ast.parse(line[1], mode="eval").body
    assert isinstance(call, ast.Call)
    return {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}


def alike(folder: Path) -> dict[str, Any]:
    """What the card says to draw the same with here, as settings."""
    line = re.search(r"`couette sample RUN (.*?)` draws the same", card(folder))
    assert line
    words = shlex.split(line[1])
    flags = {flag.removeprefix("--"): value for flag, value in zip(*[iter(words)] * 2, strict=True)}
    return {"steps": int(flags.pop("steps")), **flags}


def theirs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Their pictures, (COUNT, C, H, W) in [-1, 1], from our noise."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ in card(folder)
    pipeline.set_progress_bar_config(disable=True)
    unet = pipeline.unet.config
    noise = KeyedNoise(SEED, torch.arange(COUNT), (unet.in_channels, *unet.sample_size), "cpu")

    def drawn(shape: Any, **given: Any) -> Tensor:
        z = noise(torch.tensor(0.0), torch.tensor(0.0))
        assert z.shape[0] == shape[0] and z.shape[2:] == tuple(shape)[2:]
        return z.to(given["dtype"])

    for module in DRAWING:
        monkeypatch.setattr(importlib.import_module(f"diffusers.{module}"), "randn_tensor", drawn)
    call = {**called(folder), "batch_size": COUNT}
    images: Tensor = pipeline(**call, output_type="pt").images
    return images * 2 - 1


def same(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = api.sample(run, count=COUNT, seed=SEED, **alike(out))
    assert float((mine.abs() < 0.99).float().mean()) > 0.2, "most would be clamped in both"
    torch.testing.assert_close(theirs(out, monkeypatch), mine, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "parameterization", "threshold"),
    [
        ("linear", "v", "none"),
        ("linear", "x0", "static"),
        ("linear:beta_max=0.003", "eps", "none"),
        ("linear:steps=100", "eps", "none"),
        ("linear:steps=60,beta_max=0.03", "v", "dynamic:percentile=0.9"),
        ("scaled-linear", "v", "none"),
        ("scaled-linear:beta_max=0.02", "x0", "none"),
        ("cosine", "v", "none"),
        ("cosine", "x0", "static"),
        ("cosine:steps=50,max_beta=0.9", "v", "none"),
        ("sigmoid:steps=100", "v", "none"),
        ("sigmoid-betas", "x0", "none"),
        ("betas:values=(0.01,0.04,0.1,0.2,0.35,0.5,0.65,0.8,0.9,0.95)", "v", "none"),
        ("zero-terminal", "v", "none"),
        ("zero-terminal:schedule=linear", "x0", "static"),
        ("zero-terminal:schedule=(sigmoid:steps=100)", "v", "none"),
        ("shifted:schedule=cosine,shift=2", "v", "none"),
    ],
)
def test_ddim(
    schedule: str,
    parameterization: str,
    threshold: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diffusion = {**TABLE, "schedule": schedule, "parameterization": parameterization}
    run = made(tmp_path / "run", diffusion, {**DDIM, "threshold": threshold})
    made_now = exported(run, tmp_path / "out", format="diffusers")
    assert made_now.notes == ()
    assert alike(made_now.path)["steps"] == 5
    same(run, made_now.path, monkeypatch)


@pytest.mark.parametrize(
    ("sampler", "grid", "steps", "said"),
    [
        ("ddim:eta=0.6", "strided", 5, None),
        ("euler", "leading:steps_offset=1", 7, None),
        ("mix", "leading", 7, None),
        ("euler-ancestral", "strided", 5, None),
        ("ddpm", "strided", 40, None),
        ("ddpm:variance=beta", "strided", 40, None),
        ("ddpm", "strided", 13, None),
        ("ddpm", "linspace", 9, None),
        ("ddpm:variance=beta", "leading", 9, None),
        ("ddpm:variance=beta", "strided", 9, "spaced as 'leading'"),
        ("ddim", "strided", 19, "20 steps, not 19"),
        ("ddim", "linspace", 10, "on the grid 'linspace'"),
        ("heun", "karras", 6, "the run draws with heun"),
    ],
)
def test_other_ways_to_draw(
    sampler: str,
    grid: str,
    steps: int,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same way where diffusers has it; else its nearest, which the notes and the card name."""
    run = made(tmp_path / "run", TABLE, {"sampler": sampler, "grid": grid, "steps": steps})
    made_now = exported(run, tmp_path / "out", format="diffusers")
    assert (said is None) == (not made_now.notes)
    assert said is None or said in " ".join(made_now.notes)
    assert all(f"- {note}" in card(made_now.path) for note in made_now.notes)
    same(run, made_now.path, monkeypatch)


def test_a_run_of_ddpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained for a moment, so that its pictures are not all at the ends of the range; its card
    says what it was trained on."""
    settings = {
        "data": {"source": "digits", "limit": 64, "resolution": 8},
        "network": UNET2D,
        "training": {"batch": 16, "average": 0.0, "lr": 3e-3, "sample_every": 1000},
        "sampling": {"steps": 20},
    }
    losses(session(tmp_path / "run", settings, recipe="ddpm", length={"steps": 40}))
    out = api.export(tmp_path / "run", tmp_path / "out", format="diffusers")
    assert alike(out) == {
        "sampler": "ddpm:variance=beta",
        "grid": "leading:steps_offset=0,entry_zero=True",
        "steps": 20,
        "threshold": "static",
    }
    same(tmp_path / "run", out, monkeypatch)
    assert card(out).startswith("---\nlibrary_name: diffusers\n")
    assert "at step 40" in card(out) and "fingerprint" in card(out)
    assert card(out).count("## Use") == 1


@pytest.mark.parametrize("sampler", ["ddpm:variance=learned", "ddpm", "ddim"])
def test_a_learned_variance(sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by DDPM; where it isn't asked for, the network is written without its second half."""
    sampling = {"sampler": sampler, "grid": "leading", "steps": 6}
    run = made(tmp_path / "run", {**TABLE, "variance": "learned"}, sampling)
    out = api.export(run, tmp_path / "out", format="diffusers")
    config = json.loads((out / "unet/config.json").read_text())
    assert config["out_channels"] == (2 if "learned" in sampler else 1)
    same(run, out, monkeypatch)


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_a_flow(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", FLOW, {**EULER, "steps": steps})
    made_now = exported(run, tmp_path / "out", format="diffusers")
    assert len(made_now.notes) == 1 and "shift_terminal to 1/N" in made_now.notes[0]
    same(run, made_now.path, monkeypatch)


def test_a_flow_drawn_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = {"sampler": "heun", "grid": "karras", "steps": 12, "threshold": "static"}
    run = made(tmp_path / "run", {**FLOW, "told": "time:scale=100"}, sampling)
    notes = exported(run, tmp_path / "out", format="diffusers").notes
    assert ["heun" in notes[0], "karras" in notes[1], "static" in notes[2]] == [True] * 3
    same(run, tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("label", [None, "cat", 1])
def test_a_class(label: str | int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", classes=("dog", "cat"))
    out = api.export(run, tmp_path / "out", format="diffusers", label=label)
    same(run, out, monkeypatch)
    assert alike(out).get("label") == (None if label is None else "1")
    assert ("any class" if label is None else "the class cat") in card(out)
    other = api.sample(run, count=COUNT, seed=SEED, **{**alike(out), "label": 0})
    assert float((theirs(out, monkeypatch) - other).abs().max()) > 1e-2


def test_rgb_that_is_not_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", channels=3, height=8, width=12)
    same(run, api.export(run, tmp_path / "out", format="diffusers"), monkeypatch)


@pytest.mark.parametrize(
    ("diffusion", "sampling"),
    [(TABLE, DDIM), (TABLE, {**DDIM, "sampler": "ddpm"}), (FLOW, EULER)],
)
def test_the_files_are_those_that_diffusers_writes(
    diffusion: Any, sampling: Any, tmp_path: Path
) -> None:
    """Of this version: whoever tests with another one is told to look at what has changed."""
    run = made(tmp_path / "run", diffusion, sampling)
    out = api.export(run, tmp_path / "out", format="diffusers")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(out)
    pipeline.save_pretrained(tmp_path / "again")
    written = {
        str(path.relative_to(tmp_path / "again"))
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    assert written == {
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        WEIGHTS,
    }
    for name in written - {WEIGHTS}:
        mine, other = (
            json.loads((folder / name).read_text()) for folder in (out, tmp_path / "again")
        )
        ours_alone = {"_name_or_path"}
        assert mine == {key: other[key] for key in other if key not in ours_alone}
    assert diffusers.__version__ == VERSION


def test_half_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run")
    out = api.export(run, tmp_path / "out", format="diffusers", dtype="float16")
    whole = api.export(run, tmp_path / "whole", format="diffusers")
    assert (out / WEIGHTS).stat().st_size < 0.7 * (whole / WEIGHTS).stat().st_size
    mine = api.sample(run, count=COUNT, seed=SEED, **alike(out))
    torch.testing.assert_close(theirs(out, monkeypatch), mine, rtol=0, atol=2e-2)


@pytest.mark.slow
def test_an_average_made_now(tmp_path: Path) -> None:
    """The same weights as in our own format."""
    settings = {
        "data": {"source": "digits", "limit": 40},
        "network": UNET2D,
        "diffusion": TABLE,
        "training": {"batch": 4, "average": 0.05, "second": 0.12, "save_every": 4, "keep": 20},
        "sampling": {"steps": 2},
    }
    losses(session(tmp_path / "run", settings, length={"steps": 40}))
    ours = api.export(tmp_path / "run", tmp_path / "ours", width=0.08)
    out = api.export(tmp_path / "run", tmp_path / "out", width=0.08, format="diffusers")
    plain = api.export(tmp_path / "run", tmp_path / "plain", format="diffusers")
    mine, other, near = (
        load_model(ours).network.state_dict(),
        load_file(out / WEIGHTS),
        load_file(plain / WEIGHTS),
    )
    assert torch.equal(other["conv_in.weight"], mine["conv_in.weight"])
    assert not torch.equal(other["conv_in.weight"], near["conv_in.weight"])


def test_guidance_is_left_out_and_said(tmp_path: Path) -> None:
    run = made(tmp_path / "run", TABLE, {**DDIM, "guidance": 2}, classes=("a", "b"))
    assert exported(run, tmp_path / "none", format="diffusers").notes == ()
    (note,) = exported(run, tmp_path / "one", format="diffusers", label="b").notes
    assert "without guidance (the run's scale is 2)" in note


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"network": "unet:size=tiny,width=16"},
            r"no network 'unet'.*--network unet2d, or .* onnx",
        ),
        ({"codec": "unit"}, "--codec symmetric"),
        ({"diffusion": {**FLOW, "noise": "uniform"}}, "--diffusion.noise normal"),
        ({"diffusion": {**TABLE, "self_conditioning": True}}, "told its own last prediction"),
        ({"diffusion": {**TABLE, "parameterization": "edm"}}, "--parameterization v"),
        ({"diffusion": {**FLOW, "parameterization": "x0"}}, "--parameterization flow"),
        ({"diffusion": {**TABLE, "told": "log"}}, "--diffusion.told index"),
        ({"diffusion": {**TABLE, "told": "index:steps=50"}}, "the table's 40 entries"),
        ({"diffusion": {**FLOW, "told": "log"}}, "--diffusion.told time"),
        ({"diffusion": {**FLOW, "schedule": "flow:shift=3"}}, "told 'time' on the schedule"),
        ({"sampling": {"sampler": "ddpm:variance=learned"}}, "predicts no variance"),
        ({"diffusion": {}}, "no pipeline for pixels on the schedule 'edm'.*--schedule cosine"),
        (
            {"diffusion": {**TABLE, "schedule": "zero-terminal", "parameterization": "eps"}},
            "starts at pure noise",
        ),
        ({"diffusion": {**TABLE, "drop": 0}, "classes": ("a", "b")}, "say which with --label"),
    ],
)
def test_what_no_pipeline_holds_is_refused(
    fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    given = {"network": UNET2D, "diffusion": TABLE, "sampling": DDIM, **fields}
    run = saved(tmp_path / "run", **given)
    with pytest.raises(InputError, match=says):
        api.export(run, tmp_path / "out", format="diffusers")
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_exist(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with pytest.raises(InputError, match="trained without labels"):
        api.export(run, tmp_path / "out", format="diffusers", label="cat")
    with_classes = made(tmp_path / "classes", classes=("dog", "cat"))
    with pytest.raises(UnknownName, match="did you mean 'cat'"):
        api.export(with_classes, tmp_path / "out", format="diffusers", label="cats")
    with pytest.raises(InputError, match="leave out --label"):
        api.export(with_classes, tmp_path / "out", label="cat")


def test_it_is_no_model_of_ours(tmp_path: Path) -> None:
    """A folder for others is refused as one by those who look for a run."""
    out = api.export(made(tmp_path / "run"), tmp_path / "out", format="diffusers")
    with pytest.raises(CheckpointError):
        load_model(out)
