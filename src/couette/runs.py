"""A run on disk: its layout, its newest whole checkpoint, its log.

RUN/
├── config.yaml          every setting
├── run.json             data, classes, runtime: what was found when it began
├── metrics.jsonl        a line every so often: step, loss, lr, per-noise-level losses, …
├── samples/             grids on fixed noise, as training went
├── checkpoints/step_…/  network, average and optimizer as safetensors; model.json; state.json
├── last                 the name of the newest checkpoint, moved only when that is whole
├── README.md            the model card
└── encoder/, autoencoder/  runs that this one needed first, where it named no others
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from couette.config import RunConfig
from couette.errors import CheckpointError, DamagedCheckpoint, InputError, nearest
from couette.places import packaged
from couette.storage import (
    check_folder,
    explained,
    read_json,
    sweep,
    write_bytes,
    write_folder,
    write_json,
)
from couette.validation import parse

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STATE = "state.json"
_SETTINGS = "model.json"
ENCODER, AUTOENCODER = "encoder", "autoencoder"
"""The folders, in a run's own, of the runs that it needed first."""


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.facts_path = path / "run.json"
        self.metrics_path = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.last = path / "last"
        self.card = path / "README.md"
        self.encoder = path / ENCODER
        self.autoencoder = path / AUTOENCODER

    def stages(self) -> dict[str, RunFolder]:
        """The runs in this one's folder that it needed first, by what they made."""
        found = {name: RunFolder(self.path / name) for name in (ENCODER, AUTOENCODER)}
        return {name: run for name, run in found.items() if run.exists()}

    def exists(self) -> bool:
        return self.config_path.exists()

    def must_be_new(self) -> None:
        """Refuse a folder that holds a run, or the plan of one.

        Raises:
            InputError: it does.
        """
        if self.exists():
            raise InputError(
                f"{self.path} already holds a run; go on with --resume, or give another --out."
            )

    def begun(self) -> bool:
        """Whether there is more than a plan."""
        return self.exists() and (self.facts_path.exists() or self.checkpoints.exists())

    def plan(self, config: RunConfig) -> None:
        """Write the settings of a run that other runs must come before.

        Raises:
            StorageError: the disk refuses.
        """
        self.write_config(config)

    def begin(self, config: RunConfig, facts: Mapping[str, Any]) -> None:
        """Write what is known when a run begins.

        Raises:
            InputError: a run is there already.
            StorageError: the disk refuses.
        """
        if self.begun():
            self.must_be_new()
        # The settings go last: where they are, the run can be resumed.
        write_json(self.facts_path, dict(facts))
        self.write_config(config)

    def write_config(self, config: RunConfig) -> None:
        """Write the settings, atomically. Raises StorageError where the disk refuses."""
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_bytes(self.config_path, text.encode())

    def config(self) -> RunConfig:
        """The run's settings.

        Raises:
            CheckpointError: there is no run here, or its settings can't be read.
            ConfigError: they are not valid.
        """
        self._need()
        try:
            fields = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
            raise CheckpointError(
                f"{self.config_path} can't be read{_reason(error)}; mend it there, or draw with a "
                f"checkpoint in {self.checkpoints}, which needs no such file."
            ) from None
        return parse(RunConfig, fields, str(self.config_path))

    def facts(self) -> dict[str, Any]:
        """What was found when the run began: data, classes, sizes, runtime."""
        facts = read_json(self.facts_path)
        if not isinstance(facts, dict):
            raise CheckpointError(f"{self.facts_path} is damaged.")
        return facts

    def save(self, step: int, files: Mapping[str, bytes], keep: int) -> Path:
        """Write a checkpoint whole, then move `last` to it, then drop all but the newest `keep`.

        Checkpoints of later steps go as well: the run took them up from here again.

        Raises:
            StorageError: the disk refuses; the checkpoint before is intact and still `last`.
        """
        folder = self.checkpoints / f"step_{step:08d}"
        write_folder(folder, files)
        write_bytes(self.last, folder.name.encode())
        present = self.numbered()
        first = present.index(folder)
        for old in (*present[:first], *present[first + keep :]):
            _remove(old)
        return folder

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole: `last`, or the one before where that is damaged."""
        return self.found()[0]

    def found(self) -> tuple[Path | None, dict[Path, str]]:
        """The newest whole checkpoint, and the damaged ones that were met before it, with why."""
        candidates = self.numbered()
        named = self._named()
        if named in candidates:
            candidates = [named, *(each for each in candidates if each != named)]
        damaged: dict[Path, str] = {}
        for folder in candidates:
            try:
                check_folder(folder)
            except CheckpointError as error:
                damaged[folder] = str(error)
                continue
            return folder, damaged
        return None, damaged

    def model_folder(self) -> Path:
        """The folder to load the run's model from.

        Warns:
            DamagedCheckpoint: the newest is damaged, and which one is used instead.

        Raises:
            CheckpointError: no run, or no whole checkpoint.
        """
        self._need()
        folder, damaged = self.found()
        if folder is None and damaged:
            raise CheckpointError(self.all_damaged(damaged))
        if folder is None:
            raise CheckpointError(
                f"The run in {self.path} has no checkpoint yet; train it with couette train --out "
                f"{self.path} --resume."
            )
        if damaged:
            names = " and ".join(str(each) for each in damaged)
            warnings.warn(
                f"{names} {'is' if len(damaged) == 1 else 'are'} damaged; step "
                f"{step_of(folder):,} is used instead.",
                DamagedCheckpoint,
                stacklevel=2,
            )
        return folder

    def all_damaged(self, damaged: Mapping[Path, str]) -> str:
        """What to say where no checkpoint is whole.

        Args:
            damaged: why each of them is not.
        """
        newest, reason = next(iter(damaged.items()))
        if reason.startswith(f"{newest / _SETTINGS} was edited"):
            return (
                f"{newest / _SETTINGS} was edited or is damaged; put back what was there. How the "
                f"run draws is set in {self.config_path}."
            )
        which = "The only checkpoint" if len(damaged) == 1 else f"All {len(damaged)} checkpoints"
        verb = "is" if len(damaged) == 1 else "are"
        return (
            f"{which} in {self.checkpoints} {verb} damaged ({reason.partition(';')[0].strip('.')})"
            "; put back a copy, or remove that folder and train again with --resume."
        )

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for parent in (self.path, self.checkpoints, self.samples):
            sweep(parent)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from training this run meanwhile, where the system can.

        Raises:
            InputError: one is training it.
            StorageError: the folder can't be made.
        """
        if fcntl is None:
            yield
            return
        with explained(self.path, 0):
            self.path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another process is training {self.path}; wait for it, or stop it first."
                ) from None
            except OSError:
                pass  # a disk that knows no locks, as some network disks
            yield
        finally:
            os.close(folder)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line to the log, whole or not at all.

        Raises:
            StorageError: the disk refuses; the log is as it was.
        """
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with explained(self.metrics_path, len(line)), self.metrics_path.open("ab", 0) as file:
            size = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The log's lines; a line cut short by a kill is passed over."""
        if not self.metrics_path.exists():
            return
        with self.metrics_path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    yield row

    def rewind(self, step: int) -> None:
        """Drop the log's lines after `step`, so that a resumed run does not log a step twice."""
        if not self.metrics_path.exists():
            return
        kept = [
            json.dumps(row, ensure_ascii=False) for row in self.metrics() if row["step"] <= step
        ]
        write_bytes(self.metrics_path, "".join(line + "\n" for line in kept).encode())

    def numbered(self) -> list[Path]:
        """The checkpoints, whole or not, newest first."""
        folders = self.checkpoints.glob("step_" + "[0-9]" * 8)
        return sorted(folders, key=lambda path: path.name, reverse=True)

    def _named(self) -> Path | None:
        """The checkpoint that `last` names; None where that can't be read."""
        try:
            return self.checkpoints / self.last.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None

    def _need(self) -> None:
        if self.exists():
            return
        if kept := self.numbered():
            raise CheckpointError(
                f"{self.path} has checkpoints but no config.yaml; put that back to go on with the "
                f"run, or use a checkpoint by itself: {kept[0]}."
            )
        raise CheckpointError(f"There is no run in {self.path}{_neighbours(self.path)}")


def find_model(path: Path) -> Path:
    """The model folder that a user means by `path`: a run, a checkpoint, a saved model, or
    `starter`, the one that comes with Couette.

    Raises:
        CheckpointError: there is none; a nearby name is given.
    """
    if (path / "model.json").exists():
        return path
    return packaged(path) or RunFolder(path).model_folder()


def is_own(named: str | None, own: Path) -> bool:
    """Whether a run that another needs lies in that one's folder.

    Args:
        named: what the settings say; None means its own. Some runs have the path there that it had
            when they began.
        own: where it is then, as RUN/encoder.
    """
    if named is None or Path(named).resolve() == own.resolve():
        return True
    moved = Path(named).name == own.name and not Path(named).exists()
    return moved and RunFolder(own).exists()


def needed_run(named: str | None, own: Path) -> Path | None:
    """The run that another needs: the one that is named, else its own; None where there is none.

    Arguments as for `is_own`.
    """
    if named is not None and not is_own(named, own):
        return Path(named)
    return own if named is not None or RunFolder(own).exists() else None


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written at, by its name."""
    return int(checkpoint.name.rpartition("_")[2])


def _reason(error: Exception) -> str:
    """Where in a file of settings something is wrong, and what, in a few words."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return f" at line {mark.line + 1} ({getattr(error, 'problem', None) or 'not YAML'})"
    if isinstance(error, OSError):
        return f" ({error.strerror})"
    return " (it is not YAML as UTF-8 text)"


def _remove(folder: Path) -> None:
    """Take a checkpoint away: first its manifest, so that a half-removed one is never whole."""
    try:
        (folder / "manifest.json").unlink(missing_ok=True)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    except OSError:
        return


def _neighbours(path: Path) -> str:
    """A hint at runs that do exist beside the missing one."""
    try:
        runs = [each.name for each in path.parent.iterdir() if (each / "config.yaml").exists()]
    except OSError:
        runs = []
    near = nearest(path.name, runs)
    if near:
        return f"; did you mean {path.parent / near}?"
    return "; give the folder that `couette train` printed."
