"""How long a run is, and the learning rate along it: functions of the step, or of a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from couette.config import TrainingConfig

_WARMUP = 0.2
"""Largest share of a run that the warm-up may take."""

_GROWTH = 1.2
"""A time budget is planned anew each time that the time spent has grown by this."""


class Plan:
    """The number of steps of a run, and how far along it is.

    With `steps` or `epochs` it is known at once. With `minutes` it is worked out from the time that
    the latest steps took, again and again on the way (the first steps are slow, and machines are
    shared); the result is part of a checkpoint. The learning rate then follows the share of the
    time that is spent: whatever the number of steps is thought to be, it never rises again.

    Args:
        config: one of steps, epochs, minutes; none of them means 1,000 steps.
        samples: the size of the data set.
        clock: seconds, monotonic.
    """

    def __init__(
        self, config: TrainingConfig, samples: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config, self.samples, self._clock = config, samples, clock
        self.total: int | None = None
        if config.epochs is not None:
            self.total = max(1, math.ceil(config.epochs * samples / config.batch))
        elif config.minutes is None:
            self.total = config.steps or 1000
        self._before = 0.0
        self._begun = clock()
        self._marks = [(0, 0.0)]
        self._share = 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the run, over all its sessions."""
        return self._before + self._clock() - self._begun

    def done(self, step: int) -> bool:
        return self.total is not None and step >= self.total

    def passed(self, step: int) -> None:
        """Called after each step, counted from 1: fits the plan to the time."""
        if self.config.minutes is None:
            return
        budget, spent = 60 * self.config.minutes, self.seconds
        self._share = min(1.0, spent / budget)
        if spent >= budget:
            self.total = step
        elif step == 1:
            self._marks = [(step, spent)]  # the first step also warms up: it is no guide to others
        elif spent >= _GROWTH * self._marks[-1][1] or self.done(step):
            marked, then = self._lately(spent)
            pace = (spent - then) / (step - marked)
            self.total = step + (max(1, round((budget - spent) / pace)) if pace else step)
            self._marks.append((step, spent))

    def _lately(self, spent: float) -> tuple[int, float]:
        """The mark that the pace is taken from: half of the time ago, or longer. A shorter look
        would take every grid that is drawn, every checkpoint and every busy neighbour for the pace
        of the rest, and the learning rate would swing with it."""
        while len(self._marks) > 1 and self._marks[1][1] <= spent / 2:
            self._marks.pop(0)
        return self._marks[0]

    def epoch(self, step: int) -> float:
        return step * self.config.batch / self.samples

    def lr(self, step: int) -> float:
        """The learning rate of the step counted from 0."""
        config, total = self.config, self.total
        if config.minutes is not None:
            risen = max((step + 1) / max(1, config.warmup), self._share / _WARMUP)
            return config.lr * min(1.0, risen) * self._shape(self._share, step)
        warmup = config.warmup
        if total is not None:
            warmup = min(warmup, max(1, int(_WARMUP * total)))
        ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return config.lr * ramp * self._shape(step / total if total else 0.0, step)

    def _shape(self, progress: float, step: int) -> float:
        match self.config.decay:
            case "linear":
                return 1 - progress
            case "cosine":
                return (1 + math.cos(math.pi * progress)) / 2
            case "exponential":
                # Once an epoch by 0.1^(1/epochs), as Berkeley's recipe has it; else evenly.
                epochs = self.config.epochs
                return float(0.1 ** (int(self.epoch(step)) / epochs if epochs else progress))
            case _:
                return 1.0

    def state(self) -> dict[str, Any]:
        return {
            "asked": self._asked(),
            "total": self.total,
            "seconds": self.seconds,
            "marks": [list(mark) for mark in self._marks],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a saved plan; where another length is asked for now, that one stands."""
        total = None if state["total"] is None else int(state["total"])
        self._before, self._begun = float(state["seconds"]), self._clock()
        if state["asked"] == self._asked():
            self.total = total
            self._marks = [(int(step), float(seconds)) for step, seconds in state["marks"]]
        if self.config.minutes is not None:
            self._share = min(1.0, self._before / (60 * self.config.minutes))

    def _asked(self) -> list[float | None]:
        return [self.config.steps, self.config.epochs, self.config.minutes]
