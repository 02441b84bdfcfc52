"""What the lab found, kept line by line: a lab that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from couette.errors import CheckpointError
from couette.laboratory.trials import Outcome, Trial
from couette.storage import check_writable, read_tensors, tensor_bytes, write_bytes

NAME = "results.jsonl"
PICTURES = "pictures.safetensors"


class Results:
    """Outcomes by trial, in a file.

    The first line says what they were measured on. Where that differs from what is asked now, the
    file is begun anew: outcomes of other weights or other noise are not comparable.

    Args:
        folder: where `results.jsonl` lies.
        measured_on: model, seed, counts: what every outcome depends on.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(self, folder: Path, measured_on: Mapping[str, Any]) -> None:
        check_writable(folder)
        self.path = folder / NAME
        self.measured_on = dict(measured_on)
        self.found: dict[str, Outcome] = {}
        self.pictures: dict[str, Tensor] = {}
        first, *rest = self._lines() or [{}]
        if first == self.measured_on:
            outcomes = (Outcome(**fields) for fields in rest)
            self.found = {outcome.trial: outcome for outcome in outcomes}
            with suppress(CheckpointError):
                self.pictures = read_tensors(folder / PICTURES)

    def __contains__(self, trial: Trial) -> bool:
        return str(trial) in self.found

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.found.values())

    def add(self, outcome: Outcome, picture: Tensor | None = None) -> None:
        """Keep an outcome and its first picture (C, H, W); the files are whole at every moment."""
        if picture is not None:
            self.pictures[outcome.trial] = picture
            write_bytes(self.path.with_name(PICTURES), tensor_bytes(self.pictures))
        self.found[outcome.trial] = outcome
        lines = [self.measured_on, *(each.json() for each in self)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_bytes(self.path, text.encode())

    def best(
        self,
        evaluations: int | None = None,
        within: float = 1.05,
        noisy: bool | None = None,
    ) -> Outcome | None:
        """The cheapest outcome whose quality is within a factor of the best one's.

        Quality is the Fréchet distance where that was measured, else the error, which is never
        taken to be smaller than the doubt in what it is measured against.

        Args:
            evaluations: only those with at most so many.
            within: 1.05 allows five per cent more than the best.
            noisy: only those that draw noise, or only those that don't; None for either.
        """
        judged = any(each.frechet is not None for each in self)
        quality = {
            each.trial: value
            for each in self
            if (value := each.frechet if judged else _sure(each)) is not None
            and noisy in (None, each.noisy)
            and (evaluations is None or (each.evaluations or 0) <= evaluations)
        }
        if not quality:
            return None
        limit = within * min(quality.values())
        good = [each for each in self if quality.get(each.trial, float("inf")) <= limit]
        return min(good, key=lambda each: (each.evaluations or 0, quality[each.trial]))

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
            lines = [json.loads(line) for line in text.splitlines()]
        except (OSError, ValueError):
            return []
        fields = set(Outcome.__dataclass_fields__)
        whole = all(isinstance(line, dict) for line in lines) and all(
            set(line) == fields for line in lines[1:]
        )
        return lines if whole else []


def _sure(outcome: Outcome) -> float | None:
    """The error as far as it is known."""
    return None if outcome.error is None else max(outcome.error, outcome.doubt or 0.0)
