"""When a run saves and draws."""

from __future__ import annotations

import time

_LONGEST = 300.0


class Cadence:
    """When to do something again: every so many steps, or after growing stretches of time.

    Args:
        every: steps; "epoch"; or None for by time.
        per_epoch: steps in an epoch.
        first: seconds until the first time.
        growth: each stretch is longer than the last by this factor, up to five minutes.
    """

    def __init__(self, every: int | str | None, per_epoch: int, first: float, growth: float):
        self.every = per_epoch if every == "epoch" else every
        self.gap, self.growth = first, growth
        self.next = time.monotonic() + first

    def due(self, step: int) -> bool:
        if isinstance(self.every, int):
            return step % self.every == 0
        return time.monotonic() >= self.next

    def done(self) -> None:
        self.gap = min(self.gap * self.growth, _LONGEST)
        self.next = time.monotonic() + self.gap
