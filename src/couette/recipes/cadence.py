"""When a run saves and draws."""

from __future__ import annotations

import time

_LONGEST = 300.0
_SHARE = 0.08
"""Largest share of the time, from the second time on, that doing it by the clock may take."""


class Cadence:
    """When to do something again: every so many steps, or after growing stretches of time.

    Args:
        every: steps; "epoch"; or None for by time.
        per_epoch: steps in an epoch.
        first: seconds until the first time.
        growth: each stretch is longer than the last by this factor, up to five minutes; or so long
            that what is done takes a small share of the time.
    """

    def __init__(self, every: int | str | None, per_epoch: int, first: float, growth: float):
        self.every = per_epoch if every == "epoch" else every
        self.gap, self.growth = first, growth
        self.next = time.monotonic() + first
        self._begun = 0.0

    def due(self, step: int) -> bool:
        self._begun = time.monotonic()
        if isinstance(self.every, int):
            return step % self.every == 0
        return self._begun >= self.next

    def done(self) -> None:
        """It was done: the time since `due` is what it took."""
        now = time.monotonic()
        self.gap = max(min(self.gap * self.growth, _LONGEST), (now - self._begun) / _SHARE)
        self.next = now + self.gap
