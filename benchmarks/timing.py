"""How things are timed: in turn, in one process, so that a machine that slows down slows all."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch


@dataclass
class Case:
    """One thing to time.

    name: what it is. step: does it once. work: how much a step does, in what is reported per
    second. facts: what else belongs into its row. seconds: of each timed step.
    """

    name: str
    step: Callable[[], Any]
    work: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Work a second, from the median step."""
        return self.work / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / 2 / middle


def interleaved(cases: Sequence[Case], rounds: int, warm: int = 1) -> None:
    """Time every case once a round, after `warm` rounds that don't count."""
    for number in range(warm + rounds):
        for case in cases:
            begun = time.perf_counter()
            case.step()
            wait()
            if number >= warm:
                case.seconds.append(time.perf_counter() - begun)


class Apart:
    """What `build(*given)` gives, called in a process of its own, which is ready once this is made.

    So that others run as they would by themselves: nothing that we set of this process, such as
    threads or what becomes of freed memory, is set there.

    Args:
        build: a function of a module.
    """

    def __init__(self, build: Callable[..., Callable[..., Any]], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, build, given), daemon=True)
        process.start()
        there.close()
        self._here.recv()

    def __call__(self, *given: Any) -> Any:
        self._here.send(given)
        return self._here.recv()


def _serve(there: Connection, build: Callable[..., Callable[..., Any]], given: Any) -> None:
    step = build(*given)
    there.send(None)
    with suppress(EOFError):  # the benchmark has ended
        while True:
            found = step(*there.recv())
            wait()
            there.send(found)


def wait() -> None:
    """Until a card, where there is one, has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(one: Case, other: Case) -> tuple[float, float]:
    """How many times as fast `one` is as `other`, and half the quartile distance of the ratios of
    single rounds."""
    each = [
        theirs / mine * one.work / other.work
        for mine, theirs in zip(one.seconds, other.seconds, strict=True)
    ]
    if len(each) < 2:
        return each[0], 0.0
    low, middle, high = statistics.quantiles(each, n=4)
    return middle, (high - low) / 2


@dataclass(frozen=True)
class Goal:
    """How many times as good as something we are, and were to be.

    what: compared with what, in a few words. reached: how many times; None where nothing was as
    good. wanted: how many times.
    """

    what: str
    reached: float | None
    wanted: float


def report(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    notes: Mapping[str, Any],
    goals: Sequence[Goal] = (),
) -> None:
    """Print a table of the rows and what became of the goals, then all as one line of JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    texts = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    for row in texts:
        first, *rest = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *rest)).rstrip())
    for key, value in notes.items():
        print(f"{key}: {_text(value)}")
    for goal in goals:
        reached = "nothing as good" if goal.reached is None else f"{_text(goal.reached)} times"
        print(f"goal: {goal.what}: {reached}, of {_text(goal.wanted)}")
    whole = {"benchmark": name, "rows": list(rows), "goals": [asdict(g) for g in goals], **notes}
    print(json.dumps(whole), flush=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
