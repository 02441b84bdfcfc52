"""A run's folder: one whole checkpoint at least, whatever happens while another is written."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest

import processes
import victims
from couette.config import RunConfig, spec
from couette.errors import (
    CheckpointError,
    ConfigError,
    DamagedCheckpoint,
    InputError,
    StorageError,
)
from couette.runs import RunFolder, find_model
from couette.storage import check_folder
from victims import files

KEEP = 2


def step_of(folder: Path) -> int:
    check_folder(folder)
    step = int((folder / "model.json").read_text(encoding="utf-8"))
    assert {p.name: p.read_bytes() for p in folder.iterdir()}.items() > files(step).items()
    assert folder.name == f"step_{step:08d}"
    return step


def named(run: RunFolder) -> int:
    """The step that `last` names, which must be whole."""
    return step_of(run.checkpoints / run.last.read_text(encoding="utf-8"))


class TestSave:
    def test_keeps_the_newest(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        for step in range(1, 6):
            run.save(step, files(step), KEEP)
            assert named(run) == step
        assert [step_of(folder) for folder in run.numbered()] == [5, 4]

    def test_drops_what_a_resumed_run_left_behind(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        for step in (10, 20, 30):
            run.save(step, files(step), 3)
        run.save(15, files(15), 3)  # it went on from 10
        assert [step_of(folder) for folder in run.numbered()] == [15, 10]

    def test_other_folders_are_not_checkpoints(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        (run.checkpoints / "step_of_mine").mkdir(parents=True)
        for step in (1, 2, 3):
            run.save(step, files(step), 1)
        assert {p.name for p in run.checkpoints.iterdir()} == {"step_of_mine", "step_00000003"}

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    def test_a_refusal_at_any_call_keeps_the_one_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        run = RunFolder(tmp_path)
        run.save(1, files(1), KEEP)
        for k in range(200):
            with monkeypatch.context() as patch:
                refuse_from(patch, k, number)
                try:
                    run.save(2, files(2), KEEP)
                    break
                except StorageError:
                    pass
            assert named(run) in (1, 2)
            assert not list(tmp_path.rglob(".*"))
        assert k >= 10  # four files, the folder and `last`
        assert named(run) == 2


def refuse_from(patch: pytest.MonkeyPatch, count: int, number: int) -> None:
    """The operating system refuses to write from its k-th call on; removing stays possible."""

    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    around = victims.from_call(count, refuse)
    for name in ("write", "fsync", "mkdir", "replace", "rename"):
        patch.setattr(os, name, around(getattr(os, name)))


class TestNewest:
    @pytest.fixture
    def run(self, tmp_path: Path) -> RunFolder:
        run = RunFolder(tmp_path)
        for step in (1, 2, 3):
            run.save(step, files(step), 3)
        return run

    def newest(self, run: RunFolder) -> int:
        folder = run.newest()
        assert folder is not None
        return step_of(folder)

    @pytest.mark.parametrize("file", ["a.bin", "model.json", "manifest.json"])
    def test_falls_back_where_a_file_is_gone(self, run: RunFolder, file: str) -> None:
        (run.checkpoints / "step_00000003" / file).unlink()
        assert self.newest(run) == 2
        (run.checkpoints / "step_00000002" / file).unlink()
        assert self.newest(run) == 1
        (run.checkpoints / "step_00000001" / file).unlink()
        assert run.newest() is None

    def test_falls_back_where_a_bit_is_flipped(self, run: RunFolder) -> None:
        file = run.checkpoints / "step_00000003" / "b.bin"
        data = bytearray(file.read_bytes())
        data[5000] ^= 16
        file.write_bytes(data)
        assert self.newest(run) == 2

    @pytest.mark.parametrize("last", [b"", b"\xff\xfe", b"step_00000099", b"../../etc", b"a\0b"])
    def test_a_damaged_last_is_no_loss(self, run: RunFolder, last: bytes) -> None:
        run.last.write_bytes(last)
        assert self.newest(run) == 3
        run.last.unlink()
        assert self.newest(run) == 3

    def test_last_names_what_is_taken_up(self, run: RunFolder) -> None:
        run.last.write_text("step_00000002\n", encoding="utf-8")
        assert self.newest(run) == 2


def killed_at(tmp_path: Path, count: int) -> int:
    """The exit code; what is there afterwards is whole."""
    run = RunFolder(tmp_path / f"run{count}")
    run.save(1, files(1), 1)
    code, _, errors = processes.finished(tmp_path / "child", victims.save_and_die, run.path, count)
    assert code in (0, -signal.SIGKILL), errors
    assert named(run) == (2 if code == 0 else step_of(run.newest() or Path()))
    run.sweep()
    assert not [p for p in run.path.rglob(".*") if p.name.startswith(".")]
    return code


def test_killed_at_some_calls_of_a_save(tmp_path: Path) -> None:
    assert all(killed_at(tmp_path, count) == -signal.SIGKILL for count in range(0, 24, 2))


@pytest.mark.slow
def test_killed_at_every_call_of_a_save(tmp_path: Path) -> None:
    count = 0
    while killed_at(tmp_path, count) == -signal.SIGKILL:
        count += 1
    assert count > 24


@pytest.mark.slow
def test_killed_at_200_random_moments(tmp_path: Path) -> None:
    draw, steps = random.Random(3), []
    for count in range(200):
        run = RunFolder(tmp_path / f"run{count}")
        with processes.child(tmp_path / "child", victims.save_for_ever, run.path) as saving:
            saving.until(run.last.exists)
            time.sleep(draw.uniform(0, 0.03))
            saving.send(signal.SIGKILL)
            assert saving.wait() == -signal.SIGKILL
        steps.append(named(run))
        newest = run.newest()
        assert newest is not None
        assert step_of(newest) == steps[-1]
    assert len(set(steps)) > 5


class TestConfig:
    def test_round_trip(self, tmp_path: Path) -> None:
        config = RunConfig(network=spec("unet", size="tiny", multiples=(1, 2)))
        run = RunFolder(tmp_path)
        run.begin(config, {"fingerprint": "x"})
        assert run.config() == config
        assert run.facts() == {"fingerprint": "x"}
        with pytest.raises(InputError, match="already holds a run; go on with --resume"):
            run.begin(config, {})

    def test_settings_come_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kill in between leaves no run that can't be resumed."""
        run = RunFolder(tmp_path)
        monkeypatch.setattr(RunFolder, "write_config", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            run.begin(RunConfig(), {})
        assert not run.exists()

    @pytest.mark.parametrize(
        "text",
        [
            "!!python/object/apply:os.system ['touch canary']",
            "data: !!python/name:os.system",
            "data: !!python/object/new:pathlib.Path ['x']",
            "{",
            "\0",
            "training: {lr: 1e-3",
        ],
    )
    def test_tags_and_damage_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"config\.yaml can't be read"):
            RunFolder(tmp_path).config()
        assert not (tmp_path / "canary").exists()

    def test_damage_is_one_sentence_with_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("recipe: x\ntraining: {lr: 1\n", encoding="utf-8")
        with pytest.raises(CheckpointError) as caught:
            RunFolder(tmp_path).config()
        assert str(caught.value) == (
            f"{tmp_path / 'config.yaml'} can't be read at line 3 (expected ',' or '}}', but got "
            f"'<stream end>'); mend it there, or draw with a checkpoint in "
            f"{tmp_path / 'checkpoints'}, which needs no such file."
        )

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("training: {learning: 1}", "There is no setting 'training.learning'"),
            ("traning: {}", "did you mean 'training'"),
            ("[]", "config.yaml"),
            ("training: {steps: 1, epochs: 1}", "give one of steps, epochs and minutes"),
            ("training: {lr: .nan}", "training.lr"),
        ],
    )
    def test_settings_that_do_not_exist(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=words):
            RunFolder(tmp_path).config()


class TestLog:
    def test_lines_that_were_cut_are_passed_over(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        run.append({"step": 1, "levels": {"-8…-6": 1.0}})
        run.append({"step": 2})
        with run.metrics_path.open("ab") as file:
            file.write('{"step": 3, "…'.encode()[:-1])  # in the middle of a letter
        assert [row["step"] for row in run.metrics()] == [1, 2]
        run.rewind(1)
        assert list(run.metrics()) == [{"step": 1, "levels": {"-8…-6": 1.0}}]

    def test_foreign_lines_are_passed_over(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        run.metrics_path.write_text('[]\n{"step": "x"}\n{}\n\n{"step": 4}\n', encoding="utf-8")
        assert list(run.metrics()) == [{"step": 4}]

    def test_a_full_disk_leaves_no_half_line(self, tmp_path: Path) -> None:
        code, out, errors = processes.finished(
            tmp_path / "child", victims.append_under_limit, tmp_path
        )
        assert (code, errors) == (0, "")
        assert "the disk is full" in out
        rows = list(RunFolder(tmp_path).metrics())
        assert [row["step"] for row in rows] == list(range(len(rows)))
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")


class TestFindModel:
    def test_missing(self, tmp_path: Path) -> None:
        for name in ("digits", "mnist"):
            RunFolder(tmp_path / name).begin(RunConfig(), {})
        with pytest.raises(CheckpointError, match=r"did you mean .*digits"):
            find_model(tmp_path / "digit")
        with pytest.raises(CheckpointError, match="no checkpoint yet; train it with"):
            find_model(tmp_path / "digits")
        with pytest.raises(CheckpointError, match="give the folder that"):
            find_model(tmp_path / "nowhere" / "else")

    def test_a_damaged_checkpoint_is_said_with_what_is_used_instead(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        run.begin(RunConfig(), {})
        for step in (25, 55):
            run.save(step, files(step), 2)
        (run.checkpoints / "step_00000055" / "b.bin").write_bytes(b"")
        with pytest.warns(DamagedCheckpoint) as said:
            assert find_model(tmp_path).name == "step_00000025"
        newest = run.checkpoints / "step_00000055"
        assert [str(each.message) for each in said] == [
            f"{newest} is damaged; step 25 is used instead."
        ]

    def test_nothing_whole(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        run.begin(RunConfig(), {})
        for step in (1, 2):
            run.save(step, files(step), 2)
            (run.checkpoints / f"step_{step:08d}" / "b.bin").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"All 2 checkpoints in .* are damaged"):
            find_model(tmp_path)
        run.save(3, files(3), 1)
        (run.checkpoints / "step_00000003" / "model.json").write_text("{}")
        with pytest.raises(
            CheckpointError, match=r"model\.json was edited or is damaged; put back"
        ):
            find_model(tmp_path)

    def test_checkpoints_without_their_settings(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        folder = run.save(4, files(4), 1)
        with pytest.raises(CheckpointError) as caught:
            find_model(tmp_path)
        assert str(caught.value) == (
            f"{tmp_path} has checkpoints but no config.yaml; put that back to go on with the run, "
            f"or use a checkpoint by itself: {folder}."
        )

    def test_a_run_and_its_checkpoint(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        run.begin(RunConfig(), {})
        folder = run.save(7, files(7), 1)
        assert find_model(tmp_path) == find_model(folder) == folder
