"""A session: prepared whole before anything is written, and a folder that tells all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from couette import api
from couette.config import spec
from couette.errors import ConfigError, DataError, InputError, ShapeError, UnknownName
from couette.model import load_model
from couette.recipes import Drawn, Saved
from couette.recipes.cadence import Cadence
from couette.runs import RunFolder, find_model
from couette.runtime import Runtime
from couette.training import Progress
from small_runs import FAST, POINTS, Settings, losses, session


def test_a_run_leaves_what_its_readers_need(tmp_path: Path) -> None:
    run = session(tmp_path, POINTS, length={"steps": 4}, seed=3)
    assert not list(tmp_path.iterdir())
    events = list(run.run())
    assert [e.step for e in events if isinstance(e, Progress)] == [1, 2, 3, 4]
    assert [e.step for e in events if isinstance(e, Saved)] == [3, 4]
    assert [e.path for e in events if isinstance(e, Drawn)] == [
        tmp_path / "samples/step_00000004.png"
    ]
    folder = RunFolder(tmp_path)
    assert folder.config() == run.config
    assert folder.config().training.seed == 3
    assert folder.facts()["pictures"] == 58
    assert "at step 4" in folder.card.read_text(encoding="utf-8")
    model = load_model(find_model(tmp_path))
    assert model.config.step == 4
    assert model.config.classes == ("upper", "lower")
    assert {p.name for p in tmp_path.iterdir()} == {
        *("config.yaml", "run.json", "metrics.jsonl", "samples", "checkpoints", "last"),
        "README.md",
    }


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 1}))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"already holds a run; go on with --resume, or give"):
        session(tmp_path, POINTS)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"data": {"source": "mooons"}}, UnknownName, "did you mean 'moons'"),
        ({"data": {"source": "moons", "limit": 1}}, DataError, "two are needed"),
        ({"data": {"source": "moons", "flip": True}}, ConfigError, "made of points"),
        ({"network": "unett"}, UnknownName, "did you mean 'unet'"),
        ({"network": "berkeley"}, ShapeError, "berkeley"),
        ({"network": "points:hiden=3"}, ConfigError, "did you mean 'hidden'"),
        ({"network": "auto:hidden=3"}, ConfigError, "sized from the data"),
        ({"diffusion": {"schedule": spec("linaer")}}, UnknownName, "did you mean 'linear'"),
        ({"diffusion": {"drop": 2}}, ConfigError, "diffusion.drop"),
        ({"sampling": {"sampler": spec("huen")}}, UnknownName, "did you mean 'heun'"),
        ({"sampling": {"grid": spec("karas")}}, UnknownName, "did you mean 'karras'"),
        ({"sampling": {"sampler": spec("ddim", etta=1)}}, ConfigError, "did you mean 'eta'"),
        (
            {
                "diffusion": {
                    "noise": "uniform",
                    "schedule": spec("flow"),
                    "parameterization": spec("x0"),
                },
                "sampling": {"sampler": spec("ddpm"), "grid": spec("uniform"), "steps": 5},
            },
            InputError,
            "ddpm",
        ),
        ({"diffusion": {"schedule": "cosine", "variance": "learned"}}, ConfigError, "grey levels"),
        ({"diffusion": {"pairing": "immisible"}}, UnknownName, "did you mean 'immiscible'"),
        (
            {"diffusion": {"pairing": "ot"}, "training": {"batch": 16, "accumulate": 2}},
            ConfigError,
            "set accumulate 1",
        ),
        ({"diffusion": {"importance": 9, "weighting": "uncertainty"}}, ConfigError, "nothing to"),
        ({"training": {"average": 0.29}}, ConfigError, "between 0 and"),
        ({"training": {"accumulate": 5}}, ConfigError, "does not divide"),
        ({"runtime": {"device": "mps"}}, ConfigError, "doctor"),
    ],
)
def test_what_can_not_be_is_refused_with_nothing_written(
    tmp_path: Path, settings: Settings, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        session(tmp_path / "run", {**POINTS, **settings})
    assert not list(tmp_path.iterdir())


def test_lengths_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--steps and --minutes contradict each other"):
        session(tmp_path, POINTS, length={"steps": 3, "minutes": 1})


def test_a_batch_larger_than_the_data_is_told(tmp_path: Path) -> None:
    settings = {"data": {"source": "moons", "limit": 64}, "training": {"batch": 160}}
    notes = session(tmp_path, {**POINTS, **settings}).notes()
    assert "The batch is larger than the data: a step sees a picture 2.76 times." in notes


def test_data_are_settings_too(tmp_path: Path) -> None:
    data = {"source": "digits", "resolution": 8, "limit": 40}
    run = api.begin(data, out=tmp_path / "a", length={"steps": 1})
    assert (run.config.data.resolution, run.config.data.limit, run.data.train.height) == (8, 40, 8)
    assert run.config.recipe == "digits"
    with pytest.raises(ConfigError, match=r"did you mean '\S*resolution'"):
        api.begin({"source": "digits", "resolutio": 8}, out=tmp_path / "b")


class TestRuntime:
    """A resumed run takes the same path, unless another one is asked for."""

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        losses(session(tmp_path, {**POINTS, "runtime": {"threads": 1}}, length={"steps": 1}))
        state = next(tmp_path.glob("checkpoints/*/state.json"))
        fields = json.loads(state.read_text(encoding="utf-8"))
        fields["runtime"] = Runtime(dtype="bfloat16", why="measured once").state()
        files = {p.name: p.read_bytes() for p in state.parent.iterdir()}
        files = {name: data for name, data in files.items() if name != "manifest.json"}
        files["state.json"] = json.dumps(fields).encode()
        RunFolder(tmp_path).save(1, files, 1)
        return tmp_path

    def test_kept(self, out: Path) -> None:
        run = session(out, {}, resume=True)
        assert (run.runtime.dtype, run.runtime.why) == ("bfloat16", "measured once")

    def test_asked_for_anew(self, out: Path) -> None:
        run = session(out, {"runtime": {"dtype": "float32"}}, resume=True)
        assert run.runtime.dtype == "float32"
        assert run.runtime.why != "measured once"


def test_the_api_returns_where_the_run_is(tmp_path: Path) -> None:
    seen: list[object] = []
    run = api.train(
        "moons",
        out=tmp_path / "run",
        steps=2,
        watch=seen.append,
        network="points:hidden=8,depth=1",
        training={"batch": 16},
        **FAST,
    )
    assert (run.path, run.step) == (tmp_path / "run", 2)
    assert [e.step for e in seen if isinstance(e, Progress)] == [1, 2]
    assert api.sample(api.load(run.path), count=3, steps=2).shape == (3, 2, 1, 1)


def test_a_recipe_can_not_change_on_resume(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 1}))
    with pytest.raises(InputError, match="begun with the recipe 'points', not 'ddpm'"):
        session(tmp_path, {}, resume=True, recipe="ddpm")


@pytest.mark.parametrize(
    ("every", "due"), [(3, [3, 6, 9]), ("epoch", [4, 8]), (None, []), (1, list(range(1, 10)))]
)
def test_cadence_by_steps(every: int | str | None, due: list[int]) -> None:
    cadence = Cadence(every, 4, first=1e6, growth=2.0)
    assert [step for step in range(1, 10) if cadence.due(step)] == due


def test_cadence_by_time_grows_to_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("couette.recipes.cadence.time.monotonic", lambda: now[0])
    cadence, times = Cadence(None, 4, first=100.0, growth=2.0), []
    while now[0] < 1200:
        now[0] += 10
        if cadence.due(1):
            cadence.done()
            times.append(now[0])
    assert times == [100, 300, 600, 900, 1200]


def test_only_one_process_trains_a_run_and_the_other_writes_nothing(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 3}))
    second = session(tmp_path, {}, resume=True, length={"steps": 5})
    with (
        RunFolder(tmp_path).held(),
        pytest.raises(InputError, match="Another process is training"),
    ):
        losses(second)
    assert RunFolder(tmp_path).config().training.steps == 3
    assert list(losses(second)) == [4, 5]


def test_a_session_whose_run_went_on_without_it_is_refused(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 3}))
    stale = session(tmp_path, {}, resume=True, length={"steps": 5})
    losses(session(tmp_path, {}, resume=True, length={"steps": 4}))
    with pytest.raises(InputError, match=r"trained .* meanwhile; resume once more"):
        losses(stale)
