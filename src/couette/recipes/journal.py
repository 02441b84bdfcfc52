"""The log of a run: means since the last line, by noise level, and per epoch."""

from __future__ import annotations

import time
from typing import Any

import torch

from couette.data import Dataset
from couette.runs import RunFolder
from couette.training import Progress

_EDGES = tuple(range(-8, 9, 2))
"""Edges of the log-SNR bins; the outer two are open."""

_EVERY = 0.5
"""Seconds between lines of the log."""

_NAMED = 8
"""Refused batches that a line names, and samples that are named of each: a line is to be read."""


class Journal:
    """Collects progress and writes it to the run's `metrics.jsonl`.

    Args:
        folder: the run.
        data: for the length of an epoch.
        batch: samples per step.
    """

    def __init__(self, folder: RunFolder, data: Dataset, batch: int) -> None:
        self.folder, self.samples, self.batch = folder, len(data), batch
        self._edges = torch.tensor(_EDGES, dtype=torch.float64)
        self._clear()
        self._epoch_sum, self._epoch_steps = 0.0, 0
        self._unread: list[Progress] = []
        self._last: Progress | None = None
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def take(self, progress: Progress) -> None:
        """Take in a step; write a line when it is time.

        Raises:
            StorageError: the disk refuses; the lines are kept and written with the next ones.
        """
        self._unread.append(progress)
        due = time.monotonic() - self._written >= _EVERY
        if due:
            self._end_line()
        before = (progress.step - 1) * self.batch // self.samples
        now = progress.step * self.batch // self.samples
        if now > before:
            self._read()
            if self._epoch_steps:
                self._end_epoch(progress.step, now)
                due = True
        if due:
            self._write()

    @property
    def waiting(self) -> bool:
        """Whether there are lines that the disk has refused so far."""
        return bool(self._rows)

    def flush(self) -> None:
        """Write what was collected since the last line. Raises StorageError as `take`."""
        self._end_line()
        self._write()

    def _write(self) -> None:
        while self._rows:
            self.folder.append(self._rows[0])
            del self._rows[0]

    def _read(self) -> None:
        """Look at the steps since the last look, all at once: a look waits for the device."""
        for progress in self._unread:
            if bool(progress.applied):
                loss = float(progress.loss)
                self._sum += loss
                self._steps += 1
                self._epoch_sum += loss
                self._epoch_steps += 1
                self._by_level(progress)
            else:
                self._refused += 1
                if len(self._suspects) < _NAMED:
                    self._suspects.append(progress.samples[:_NAMED].tolist())
            self._last = progress
        self._unread.clear()

    def _end_line(self) -> None:
        self._read()
        last = self._last
        if last is None or not (self._steps or self._refused):
            return
        row: dict[str, Any] = {
            "step": last.step,
            "epoch": round(last.epoch, 4),
            "seconds": round(last.seconds, 2),
            "lr": last.lr,
            "norm": float(last.norm) if bool(last.applied) else None,
        }
        if self._steps:
            row["loss"] = self._sum / self._steps
            row |= {name: value / self._steps for name, value in self._logged.items()}
            row["levels"] = {
                _name(i): round(float(self._level_sum[i] / self._level_count[i]), 6)
                for i in range(len(_EDGES) + 1)
                if self._level_count[i]
            }
        if self._refused:
            row["refused"] = self._refused
            row["refused_samples"] = self._suspects
        self._rows.append(row)
        self._clear()
        self._written = time.monotonic()

    def state(self) -> dict[str, Any]:
        self._read()
        return {"epoch_sum": self._epoch_sum, "epoch_steps": self._epoch_steps}

    def load(self, state: dict[str, Any]) -> None:
        self._epoch_sum = float(state["epoch_sum"])
        self._epoch_steps = int(state["epoch_steps"])

    def _by_level(self, progress: Progress) -> None:
        if "log_snr" not in progress.logs:
            for name, values in progress.logs.items():
                self._logged[name] = self._logged.get(name, 0.0) + float(values.mean())
            return
        level = progress.logs["log_snr"].reshape(-1).double().cpu()
        error = progress.logs["error"].reshape(-1).double().cpu()
        where = torch.bucketize(level, self._edges)
        self._level_sum.index_add_(0, where, error)
        self._level_count.index_add_(0, where, torch.ones_like(error))

    def _end_epoch(self, step: int, epoch: int) -> None:
        mean = self._epoch_sum / self._epoch_steps
        self._rows.append({"step": step, "epoch": epoch, "epoch_loss": mean})
        self._epoch_sum, self._epoch_steps = 0.0, 0

    def _clear(self) -> None:
        self._sum, self._steps = 0.0, 0
        self._refused, self._suspects = 0, list[list[int]]()
        self._logged: dict[str, float] = {}
        self._level_sum = torch.zeros(len(_EDGES) + 1, dtype=torch.float64)
        self._level_count = torch.zeros(len(_EDGES) + 1, dtype=torch.float64)


def _name(index: int) -> str:
    """A bin by its log-SNR: "<-8", "-8…-6", …, ">8"."""
    if index == 0:
        return f"<{_EDGES[0]}"
    if index == len(_EDGES):
        return f">{_EDGES[-1]}"
    return f"{_EDGES[index - 1]}…{_EDGES[index]}"
