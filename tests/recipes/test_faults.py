"""What a run survives: a full disk, a signal in any phase, numbers that are not finite."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import processes
import victims
from couette import storage
from couette.config import DataConfig
from couette.contracts import Batch
from couette.data import open_data
from couette.errors import Diverged, StorageError
from couette.recipes import Drawn, Note, Saved
from couette.recipes.journal import Journal
from couette.runs import RunFolder
from couette.training import Progress
from couette.training.trainer import PATIENCE
from small_runs import POINTS, digests, losses, session

TRAIN = (
    *("train", "moons", "--data.limit", 64, "--network", "points:hidden=8,depth=1"),
    *("--batch", 16, "--runtime.dtype", "float32", "--runtime.threads", 1),
)
EVERY = ("--training.save_every", 2, "--training.sample_every", 2)


class Disk:
    """A disk that can be full: everything that is written through goes by here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = storage._write_through

        def write(handle: int, data: bytes) -> None:
            if self.full:
                os.write(handle, data[:10])
                raise OSError(28, "No space left on device")
            real(handle, data)

        monkeypatch.setattr(storage, "_write_through", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class TestDiskFull:
    def test_training_goes_on_and_saves_when_there_is_room(
        self, tmp_path: Path, disk: Disk
    ) -> None:
        settings = {**POINTS, "training": {"batch": 16, "save_every": 2, "sample_every": 3}}
        plain = losses(session(tmp_path / "plain", settings, length={"steps": 8}))
        run = session(tmp_path / "run", settings, length={"steps": 8})
        found: dict[int, str] = {}
        notes: list[str] = []
        for event in run.run():
            match event:
                case Progress(step=step, loss=loss):
                    found[step] = float(loss).hex()
                    disk.full = 3 <= step < 7
                case Note(text):
                    notes.append(text)
                    newest = run.folder.newest()
                    assert newest is not None and newest.name == "step_00000002"
                case Saved() | Drawn():
                    assert not disk.full
        assert found == plain
        assert len([note for note in notes if "the next checkpoint will try again" in note]) == 2
        assert len([note for note in notes if "without this grid" in note]) == 2
        assert all(re.search(r"the disk is full \(\d+ kB are needed\)", note) for note in notes)
        assert digests(tmp_path / "run") == digests(tmp_path / "plain")

    def test_a_log_that_can_not_grow_is_written_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = session(tmp_path, POINTS, length={"steps": 12})
        real, full = RunFolder.append, True

        def append(folder: RunFolder, row: dict[str, object]) -> None:
            if full:
                raise StorageError("no room")
            real(folder, row)

        monkeypatch.setattr(RunFolder, "append", append)
        notes = []
        for event in run.run():
            if isinstance(event, Progress):
                full = event.step < 10
            if isinstance(event, Note):
                notes.append(event.text)
        assert notes == ["no room Training goes on; the log is written later."]
        rows = list(run.folder.metrics())
        assert [row["epoch"] for row in rows if "epoch_loss" in row] == [1, 2, 3]

    def test_a_last_save_that_fails_is_an_error_with_the_one_before_intact(
        self, tmp_path: Path, disk: Disk
    ) -> None:
        run = session(tmp_path, POINTS, length={"steps": 5})
        with pytest.raises(StorageError, match=r"kB are needed\); free some space"):
            for event in run.run():
                disk.full = isinstance(event, Progress) and event.step > 3
        disk.full = False
        assert list(losses(session(tmp_path, {}, resume=True))) == [4, 5]

    def test_no_room_is_found_before_the_first_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights, average and two moments of each weight, for keep + 1 checkpoints."""
        run = session(tmp_path / "run", POINTS, length={"steps": 5})
        weights = sum(p.numel() for p in run.models["weights"].network.parameters())
        keep = run.config.training.keep
        most = (keep + 1) * 4 * (4 * weights)
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=most - 1))
        said = (
            r"3 checkpoints in .* will need \d+ kB, and the disk has \d+ kB free; free some space"
        )
        with pytest.raises(StorageError, match=said):
            next(run.run())
        assert not (tmp_path / "run").exists()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * most))
        assert len(losses(run)) == 5

    def test_the_command_line_on_a_real_limit(self, tmp_path: Path) -> None:
        """Files of up to 8 kB: settings fit, weights do not."""
        out = tmp_path / "run"
        code, _, errors = processes.finished(
            tmp_path / "child",
            victims.command_under_limit,
            8192,
            *TRAIN,
            *("--steps", 2, "--out", out),
        )
        assert code == 2
        assert re.fullmatch(
            r"couette: Can't write .*: the disk is full \(\d+ kB are needed\); free some space\.\n",
            errors,
        )
        assert RunFolder(out).newest() is None
        assert not list(out.rglob(".*"))


PHASES = {
    "opening data": ("couette.recipes.session:open_data", 0),
    "probing": ("couette.recipes.session:Session._runtime", 0),
    "the first step": ("couette.training.trainer:Trainer._advance", 1),
    "training": ("couette.recipes.journal:Journal.take", 1),
    "saving": ("couette.runs:RunFolder.save", 2),
    "drawing": ("couette.recipes.session:preview", 2),
}


def stopped(tmp_path: Path, phase: str, number: int) -> tuple[int, str, Path]:
    """Send a signal in a phase of a run of 1000 steps; exit code, stderr, the run."""
    where, _ = PHASES[phase]
    out, mark = tmp_path / "run", tmp_path / "mark"
    arguments = (*TRAIN, "--steps", 1000, *EVERY, "--out", out)
    with processes.child(
        tmp_path / "child", processes.command_paused, where, mark, *arguments
    ) as run:
        run.until(mark.exists)
        run.send(number)
        mark.unlink()
        code = run.wait()
        return code, run.errors, out


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("opening data", signal.SIGTERM),
        ("opening data", signal.SIGINT),
        ("probing", signal.SIGTERM),
        ("training", signal.SIGINT),
        ("training", signal.SIGHUP),
        ("the first step", signal.SIGTERM),
        ("saving", signal.SIGTERM),
        ("drawing", signal.SIGTERM),
        ("drawing", signal.SIGINT),
    ],
)
def test_a_signal_in_any_phase(tmp_path: Path, phase: str, number: int) -> None:
    """Saved, said, and a code of its own: 130 for Ctrl-C, 143 for SIGTERM."""
    code, errors, out = stopped(tmp_path, phase, number)
    assert code == 128 + number
    assert "Traceback" not in errors
    least = PHASES[phase][1]
    if not least:
        assert not out.exists()
        return
    found = re.search(r"Stopped and saved at step (\d+)\. Go on with: couette (.*)", errors)
    assert found is not None, errors
    step, go_on = int(found[1]), found[2].split()
    assert least <= step < 20
    newest = RunFolder(out).newest()
    assert newest is not None and newest.name == f"step_{step:08d}"
    assert not list(out.rglob(".*"))
    assert go_on == ["train", "--out", str(out), "--resume"]


@pytest.mark.slow
def test_the_printed_command_goes_on(tmp_path: Path) -> None:
    code, errors, out = stopped(tmp_path, "training", signal.SIGTERM)
    assert code == 143
    go_on = errors.rpartition("Go on with: couette ")[2].split()
    code, text, errors = processes.finished(
        tmp_path / "again", processes.command, *go_on, "--steps", 4, "--json"
    )
    assert (code, errors) == (0, "")
    events = [json.loads(line) for line in text.splitlines()]
    assert events[-1] == {"event": "done", "path": str(out), "step": 4}


def test_a_second_ctrl_c_ends_at_once_and_harms_nothing(tmp_path: Path) -> None:
    """The first one asks; the second comes while the state is being saved."""
    out, mark = tmp_path / "run", tmp_path / "mark"
    arguments = (*TRAIN, "--steps", 1000, *EVERY, "--out", out)
    where = "couette.runs:RunFolder.save"
    with processes.child(
        tmp_path / "child", processes.command_paused, where, mark, *arguments
    ) as run:
        run.until(mark.exists)  # in the first save
        # Signals that come too fast are one: press until it ends, though the save is held up.
        for _ in range(100):
            with contextlib.suppress(ProcessLookupError):
                run.send(signal.SIGINT)
            run.process.join(0.2)
            if not run.process.is_alive():
                break
        assert mark.exists()
        assert run.wait() == 130
        assert "Traceback" not in run.errors
    mark.unlink()
    assert not list(out.rglob(".*"))


def test_a_run_that_nobody_watches_any_more_is_saved(tmp_path: Path) -> None:
    """A broken pipe, a closed terminal, an error in the watcher."""
    run = session(tmp_path, POINTS, length={"steps": 100})

    def watch() -> None:
        for event in run.run():
            if isinstance(event, Progress) and event.step == 7:
                raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        watch()
    newest = run.folder.newest()
    assert newest is not None and newest.name == "step_00000007"


class TestNotFinite:
    def spoilt(self, tmp_path: Path, steps: int, bad: Callable[[int], bool]) -> list[object]:
        run = session(tmp_path, POINTS, length={"steps": steps})
        real = run.trainer.batches

        def batches(step: int) -> Batch:
            batch = real(step)
            return batch._replace(data=batch.data * math.nan) if bad(step) else batch

        run.trainer.batches = batches
        return list(run.run())

    def test_refused_and_logged_with_its_samples(self, tmp_path: Path) -> None:
        events = self.spoilt(tmp_path, 6, lambda step: step == 2)
        refused = [e for e in events if isinstance(e, Progress) and not e.applied]
        assert [e.step for e in refused] == [3]
        rows = [row for row in RunFolder(tmp_path).metrics() if "refused" in row]
        assert sum(row["refused"] for row in rows) == 1
        assert POINTS["training"]["batch"] == len(refused[0].samples) > 8
        assert rows[0]["refused_samples"] == [refused[0].samples[:8].tolist()]
        text = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
        assert "NaN" not in text

    def test_a_line_names_the_first_of_many(self, tmp_path: Path) -> None:
        """All are counted; of the first eight batches eight samples are named."""
        journal = Journal(RunFolder(tmp_path), open_data(DataConfig(source="moons")).train, 256)
        number, applied = torch.zeros(()), torch.zeros((), dtype=torch.bool)
        for step in range(40):
            samples = torch.arange(256) + step
            journal.take(
                Progress(step + 1, 40, 0, 0, 1e-3, number, number, {}, applied, samples=samples)
            )
        journal.flush()
        first = 0
        for row in RunFolder(tmp_path).metrics():
            steps = range(first, first + min(8, row["refused"]))
            assert row["refused_samples"] == [list(range(step, step + 8)) for step in steps]
            first += row["refused"]
        assert first == 40

    def test_diverged_saves_the_last_good_state(self, tmp_path: Path) -> None:
        with pytest.raises(Diverged):
            self.spoilt(tmp_path, 100, lambda step: step >= 5)
        newest = RunFolder(tmp_path).newest()
        assert newest is not None and newest.name == f"step_{5 + PATIENCE:08d}"
        weights = storage.read_tensors(newest / "network.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
        plain = session(tmp_path / "plain", POINTS, length={"steps": 100})
        losses(plain, stop_after=5)
        kept = plain.folder.newest()
        assert kept is not None
        good = storage.read_tensors(kept / "network.safetensors")
        assert all(torch.equal(weights[name], good[name]) for name in good)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_sampling_writes_nothing(tmp_path: Path, number: int) -> None:
    losses(session(tmp_path / "run", POINTS, length={"steps": 1}))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    mark = tmp_path / "mark"
    where = "couette.generate.drawing:finished"
    with processes.child(
        tmp_path / "child", processes.command_paused, where, mark, "sample", tmp_path / "run"
    ) as run:
        run.until(mark.exists)
        run.send(number)
        mark.unlink()
        assert run.wait() == 128 + number
        assert run.errors.startswith("couette: ")
        assert "Traceback" not in run.errors
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
