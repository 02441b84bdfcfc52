"""A resumed run is the unbroken one, to the bit."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

import processes
from couette.config import spec
from couette.errors import CheckpointError, ConfigError, DataError
from couette.recipes.session import Session
from couette.runs import STATE, RunFolder
from couette.storage import read_json, read_tensors
from small_runs import POINTS, Settings, digests, losses, read_log, session, watched

STEPS = 9
DIGITS: Settings = {"source": "digits", "limit": 40, "flip": True, "crop": 2}
MOONS: Settings = {"source": "moons", "limit": 40}
TRAINING: Settings = {"batch": 16, "accumulate": 2, "lr": 2e-3, "warmup": 3, "decay": "cosine"}

# 36 pictures train, so epochs end within the third, the fifth and the seventh batch.
KINDS: dict[str, Settings] = {
    "dropout, flips, crops, parts": {
        "data": DIGITS,
        "network": spec(
            "unet2d",
            block_out_channels=(8, 16),
            attention=(False, True),
            norm_num_groups=4,
            layers_per_block=1,
            dropout=0.2,
        ),
        "training": TRAINING,
    },
    "hidden labels, muon": {
        "data": DIGITS,
        "network": spec("unet", size="tiny", width=16, dropout=0.1),
        "diffusion": {"drop": 0.5},
        "training": {**TRAINING, "optimizer": "muon"},
    },
    "batch statistics": {
        "data": DIGITS,
        "network": spec("berkeley", hidden=4, time=True),
        "training": {**TRAINING, "accumulate": 1, "average": 0.1, "decay": "exponential"},
    },
    "learned uncertainty, recalled predictions, strata": {
        "data": MOONS,
        "network": spec("points", hidden=8, depth=1),
        "diffusion": {"weighting": "uncertainty", "self_conditioning": True, "strata": 8},
        "training": TRAINING,
    },
    "importance, pairs, offsets": {
        "data": MOONS,
        "network": spec("points", hidden=8, depth=1),
        "diffusion": {"importance": 2, "pairing": "ot", "offset": 0.1, "loss": "pseudo-huber"},
        "training": {**TRAINING, "accumulate": 1},
    },
    "learned variance": {
        "data": DIGITS,
        "network": spec("unet", size="tiny", width=8, blocks=1, multiples=(1,)),
        "diffusion": {"schedule": "cosine", "parameterization": "eps", "variance": "learned"},
        "training": TRAINING,
    },
}


def epoch_lines(out: Path) -> list[dict[str, Any]]:
    return [row for row in RunFolder(out).metrics() if "epoch_loss" in row]


def begun(out: Path, kind: Settings, **more: Any) -> Session:
    return session(out, kind, length={"steps": STEPS}, **more)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_run_dropped_and_resumed_equals_the_unbroken_one(tmp_path: Path, kind: Settings) -> None:
    whole = losses(begun(tmp_path / "whole", kind))
    assert list(whole) == list(range(1, STEPS + 1))

    parts = losses(begun(tmp_path / "parts", kind), stop_after=2)
    for stop in (5, None):  # the second ends in the middle of an epoch, the fifth near an edge
        resumed = session(tmp_path / "parts", {}, resume=True)
        assert resumed.trainer.step == len(parts)
        parts |= losses(resumed, stop_after=stop)

    assert parts == whole
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert epoch_lines(tmp_path / "parts") == epoch_lines(tmp_path / "whole")
    steps = [row["step"] for row in RunFolder(tmp_path / "parts").metrics()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("kind", "file", "tensor"),
    [
        ("learned uncertainty, recalled predictions, strata", "uncertainty", "weight"),
        ("importance, pairs, offsets", "importance", "losses"),
    ],
)
def test_what_an_objective_learns_is_saved_beside_the_network(
    tmp_path: Path, kind: str, file: str, tensor: str
) -> None:
    losses(begun(tmp_path, KINDS[kind]))
    newest = RunFolder(tmp_path).newest()
    assert newest is not None
    assert bool((read_tensors(newest / f"{file}.safetensors")[tensor] != 0).all())


def test_the_proof_would_see_another_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        losses(session(tmp_path / str(seed), POINTS, length={"steps": 2}, seed=seed))
    first, second = digests(tmp_path / "0"), digests(tmp_path / "1")
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


def killed_and_resumed(tmp_path: Path, settings: Settings, steps: int, kills: list[int]) -> None:
    """SIGKILL after each of the steps, resume each time; then compare with the unbroken run."""
    length = {"length": {"steps": steps}}
    whole = losses(session(tmp_path / "whole", settings, **length))
    out, log = tmp_path / "parts", tmp_path / "log"
    for i, kill in enumerate([*kills, None]):
        more = {} if i else length
        own = {} if i else settings
        code, _, errors = processes.finished(
            tmp_path / f"child{i}", watched, out, log, own, kill, bool(i), more
        )
        assert code == (0 if kill is None else -signal.SIGKILL), errors
    assert read_log(log) == whole
    assert digests(out) == digests(tmp_path / "whole")
    assert epoch_lines(out) == epoch_lines(tmp_path / "whole")


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path) -> None:
    """57 points train: the 4th batch ends an epoch, and at the 2nd no checkpoint is there yet."""
    killed_and_resumed(tmp_path, POINTS, 12, [2, 4, 8])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_killed_at_many_random_steps(tmp_path: Path, kind: Settings) -> None:
    settings = {**kind, "training": {**kind["training"], "save_every": 2}}
    draw = random.Random(7)
    # The ninth batch is the last of the fourth epoch.
    kills = sorted([9, *draw.sample([*range(3, 9), *range(10, 60)], 19)])
    killed_and_resumed(tmp_path, settings, 60, kills)


def test_a_plan_by_minutes_is_kept(tmp_path: Path) -> None:
    """A resumed run keeps the number of steps that the time was turned into, and its clock."""
    losses(session(tmp_path, POINTS, length={"minutes": 5.0}), stop_after=4)
    newest = RunFolder(tmp_path).newest()
    assert newest is not None
    kept = read_json(newest / STATE)["trainer"]["plan"]
    resumed = session(tmp_path, {}, resume=True)
    assert resumed.trainer.plan.total == kept["total"] > 4
    assert resumed.trainer.plan.seconds >= kept["seconds"] > 0


def test_a_longer_run_can_be_asked_for_and_survives_a_kill(tmp_path: Path) -> None:
    """The new length stands even where the run is killed before it saves anything."""
    losses(session(tmp_path, POINTS, length={"steps": 3}))
    longer = session(tmp_path, {}, resume=True, length={"steps": 5})
    longer.folder.write_config(longer.config)  # what a run does first, before it is killed
    again = session(tmp_path, {}, resume=True)
    assert list(losses(again)) == [4, 5]
    assert RunFolder(tmp_path).config().training.steps == 5


def test_a_finished_run_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 3}))
    before = digests(tmp_path)
    assert losses(session(tmp_path, {}, resume=True)) == {}
    assert digests(tmp_path) == before


def test_a_run_without_a_checkpoint_begins_anew_with_a_clean_log(tmp_path: Path) -> None:
    run = session(tmp_path, POINTS, length={"steps": 3})
    run.folder.begin(run.config, {"fingerprint": run.data.train.fingerprint})
    run.folder.append({"step": 2, "loss": 1.0})
    assert list(losses(session(tmp_path, {}, resume=True))) == [1, 2, 3]
    assert 1.0 not in [row.get("loss") for row in RunFolder(tmp_path).metrics()]


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    whole = losses(session(tmp_path, POINTS, length={"steps": 6}))
    wanted = digests(tmp_path)
    newest = RunFolder(tmp_path).newest()
    assert newest is not None and newest.name == "step_00000006"
    file = newest / "network.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    resumed = session(tmp_path, {}, resume=True)
    assert resumed.trainer.step == 3
    lost = "step_00000006 is damaged; going on from step 3, 3 steps are trained again"
    assert lost in resumed.notes()
    assert losses(resumed) == {step: whole[step] for step in (4, 5, 6)}
    assert digests(tmp_path) == wanted


def test_no_whole_checkpoint_is_an_error_not_a_new_run(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 3}))
    for file in tmp_path.glob("checkpoints/*/state.json"):
        file.write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"The only checkpoint in .* is damaged .*; put back"):
        session(tmp_path, {}, resume=True)


class TestRefused:
    """What does not go with the run is refused, and the run stays as it was."""

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        losses(session(tmp_path, POINTS, length={"steps": 3}))
        return tmp_path

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"data": {"limit": 65}}, DataError),
            ({"data": {"source": "swiss-roll"}}, DataError),
            ({"network": "points:hidden=9,depth=1"}, ConfigError),
            ({"training": {"average": 0}}, None),
            ({"training": {"optimizer": "adamw", "batch": 0}}, ConfigError),
        ],
    )
    def test_by_the_session(
        self, out: Path, settings: Settings, error: type[Exception] | None
    ) -> None:
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
        if error is None:
            session(out, {**POINTS, **settings}, resume=True)
        else:
            with pytest.raises(error):
                session(out, settings, resume=True)
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before

    def test_a_state_of_another_kind(self, out: Path) -> None:
        folder = RunFolder(out).newest()
        assert folder is not None
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        for name, value in (("trainer", {}), ("runtime", {"device": "moon"}), ("journal", [])):
            run = RunFolder(out)
            files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
            files[STATE] = json.dumps({**state, name: value}).encode()
            run.save(4, files, 9)
            with pytest.raises(CheckpointError, match=r"damaged|does not fit"):
                session(out, {}, resume=True)
