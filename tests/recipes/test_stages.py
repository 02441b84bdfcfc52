"""One command for all: stages are runs of their own, taken up where they were left."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import couette
from couette import api
from couette.cli import main
from couette.config import spec
from couette.data import open_data
from couette.errors import CheckpointError, ConfigError, DataError, InputError
from couette.model import load_model, read_config
from couette.recipes import Began, Staged
from couette.recipes.session import Session
from couette.recipes.stages import AUTOENCODER, ENCODER, needed, stage_config, staged
from couette.registry import RECIPES
from couette.runs import RunFolder, find_model
from couette.training import Progress
from recipes.test_text import folder
from small_runs import FAST, digests

CAPTIONS = ("a red picture", "a green picture", "a blue picture")
STEPS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("stages") / "data", CAPTIONS)


def begun(out: Path, data: Path | None, *, resume: bool = False, **settings: Any) -> Any:
    given = {
        **FAST,
        "network": "unet:size=tiny,width=16,patch=1,reading=1",
        "training": {"batch": 8, "save_every": 2},
        "sampling": {"steps": 2},
    }
    return api.begin(
        None if data is None else str(data),
        out=out,
        recipe=None if resume else "text-to-image",
        length={} if resume else {"steps": STEPS},
        settings=settings or None if resume else {**given, **settings},
        resume=resume,
    )


def watched(run: Any, stop: tuple[str, int] | None = None) -> list[tuple[str, int]]:
    """The stages and steps that a run goes through, to the end or until one of them."""
    name, found = "", list[tuple[str, int]]()
    if isinstance(run, Staged):
        name = run._name
    events = run.run()
    for event in events:
        if isinstance(event, Began):
            name = event.name
        if isinstance(event, Progress):
            found.append((name, event.step))
            if found[-1] == stop:
                break
    events.close()
    return found


WHOLE = [(name, step) for name in (ENCODER, AUTOENCODER, "") for step in range(1, STEPS + 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("stages") / "whole"
    assert watched(begun(out, data)) == WHOLE
    return out


def test_each_stage_is_a_run(whole: Path) -> None:
    objectives = {
        name: RunFolder(whole / name).config().objective.name for name in (ENCODER, AUTOENCODER)
    }
    assert objectives == {ENCODER: "contrastive", AUTOENCODER: "autoencoder"}
    assert RunFolder(whole / AUTOENCODER).config().network.settings["factor"] == 2
    report, _ = api.evaluate(whole / ENCODER)
    assert report.json()["what"] == "encoder"


def test_the_model_needs_none_of_them(whole: Path, tmp_path: Path) -> None:
    model = load_model(find_model(whole))
    assert model.shape == (4, 8, 8)
    assert model.conditioner.words is not None and model.conditioner.words.reader is not None
    drawn = couette.sample(model, count=2, prompt="a red picture")
    assert drawn.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("stop", [(ENCODER, 2), (AUTOENCODER, 1), (AUTOENCODER, 3), ("", 2)])
def test_taken_up_wherever_it_was_left(
    whole: Path, data: Path, tmp_path: Path, stop: tuple[str, int]
) -> None:
    out = tmp_path / "run"
    first = watched(begun(out, data), stop)
    assert first == WHOLE[: WHOLE.index(stop) + 1]
    if stop[0]:
        with pytest.raises(CheckpointError):
            couette.sample(out, count=1)
        with pytest.raises(InputError, match="already holds a run"):
            begun(out, data)
    out = out.rename(tmp_path / "moved")
    rest = watched(begun(out, None, resume=True))
    assert [step for _, step in first + rest] == [step for _, step in WHOLE]
    for name in (ENCODER, AUTOENCODER, ""):
        assert digests(out / name) == digests(whole / name)


@pytest.mark.parametrize("named", [None, "/gone"])
def test_a_moved_run_without_a_checkpoint(whole: Path, tmp_path: Path, named: str | None) -> None:
    """Its stages came along, also where its settings name the place where they were."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints")
    if named is not None:
        codec = spec("latent", run=f"{named}/{AUTOENCODER}")
        settings = RunFolder(out).config().replace(text={"run": f"{named}/{ENCODER}"}, codec=codec)
        RunFolder(out).write_config(settings)
    run = begun(out, None, resume=True)
    assert isinstance(run, Session) and run.trainer.step == 0
    kept = read_config(find_model(whole))
    assert run.model_config.reader == kept.reader is not None
    assert run.model_config.autoencoder == kept.autoencoder is not None


def test_whose_stages_are_its_own(whole: Path, tmp_path: Path) -> None:
    config = RunFolder(whole).config()
    assert (config.text.run, config.codec.settings) == (None, {})
    assert staged(config, whole) == needed(config) == (ENCODER, AUTOENCODER)
    for place, own in ((whole, True), (tmp_path / "gone", True), (tmp_path, False)):
        (tmp_path / ENCODER).mkdir(exist_ok=True)
        named = config.replace(text={"run": str(place / ENCODER)})
        assert needed(named) == (AUTOENCODER,)
        assert (ENCODER in staged(named, whole)) == own
    assert staged(RECIPES["default"](), whole) == ()


def test_stages_that_are_named_are_left_out(whole: Path, data: Path, tmp_path: Path) -> None:
    """The same runs serve another model."""
    named: dict[str, Any] = {
        "text": {"encoder": "clip", "run": str(whole / ENCODER)},
        "codec": spec("latent", run=str(whole / AUTOENCODER)),
    }
    run = begun(tmp_path / "run", data, **named)
    assert isinstance(run, Session)
    assert watched(run) == [("", step) for step in range(1, STEPS + 1)]
    assert digests(tmp_path / "run") == digests(whole)
    one = begun(tmp_path / "one", data, text=named["text"])
    assert isinstance(one, Staged) and one._stages == (AUTOENCODER,)


def test_minutes_are_shared(data: Path) -> None:
    base = RECIPES["text-to-image"]().replace(data={"source": str(data)})
    splits = open_data(base.data)
    minutes = [stage_config(name, base, splits).training.minutes for name in (ENCODER, AUTOENCODER)]
    assert minutes == pytest.approx([0.15 * 20, 0.2 * 20])
    assert needed(base) == (ENCODER, AUTOENCODER)


def test_what_the_data_lack_is_said_before_anything_is_written(tmp_path: Path) -> None:
    source = folder(tmp_path / "data", (None,))
    with pytest.raises(DataError, match="has no captions to read"):
        begun(tmp_path / "run", source)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"codec": ("latent", ENCODER)}, "autoencoder"),
        ({"text": AUTOENCODER}, "encoder"),
        ({"text": "openai/clip-vit-base-patch32"}, "--text.encoder pretrained"),
    ],
    ids=["an encoder for an autoencoder", "the other way round", "a name of the hub"],
)
def test_what_is_named_is_read_before_other_stages_are_trained(
    whole: Path, data: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {}
    if "codec" in settings:
        given["codec"] = spec("latent", run=str(whole / settings["codec"][1]))
    if "text" in settings:
        name = settings["text"]
        given["text"] = {"encoder": "clip", "run": name if "/" in name else str(whole / name)}
    with pytest.raises((CheckpointError, ConfigError, InputError), match=said):
        begun(tmp_path / "run", data, **given)
    assert not (tmp_path / "run").exists()


def test_it_says_where_it_is(data: Path, tmp_path: Path) -> None:
    run = begun(tmp_path / "run", data)
    assert run.notes()[0] == "Stage 1 of 3: the encoder."
    headings = [event.notes[0] for event in run.run() if isinstance(event, Began)]
    assert headings == ["Stage 2 of 3: the autoencoder.", "Stage 3 of 3: the model."]


def at_its_end(out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[list[str]]]:
    """What a run says that goes on to its end, and the commands that it names last."""
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--out", str(out), "--resume"])
    said = capsys.readouterr().out
    return said, [shlex.split(line)[1:] for line in said.partition("Next:")[2].splitlines()]


def test_what_to_do_next(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few steps of a stage are mended by beginning anew; the prompt to try is a caption."""
    out = tmp_path / "a run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints")
    (out / "run.json").unlink()
    said, commands = at_its_end(out, capsys)
    assert "Few steps (encoder 3, autoencoder 3, model 3): expect noise." in said
    assert "keeps its encoder and autoencoder" in said
    longer = ["--recipe", "text-to-image", "--out", f"{out}-longer", "--minutes", "2"]
    assert shlex.join(["couette", "train", str(data), *longer]) in said
    assert commands == [
        ["sample", str(out), "--count", "16", "--prompt", "a red picture"],
        ["show", str(out)],
        ["eval", str(out)],
        ["search", f"{out}/encoder", "a red picture"],
        ["show", f"{out}/autoencoder"],
        ["eval", f"{out}/autoencoder"],
    ]
    card = RunFolder(out).card.read_text(encoding="utf-8")
    assert all(shlex.join(["couette", *each]) in card for each in commands)
