"""When a run saves and draws."""

from __future__ import annotations

from itertools import pairwise

import pytest

from couette.recipes import cadence
from couette.recipes.cadence import Cadence


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cadence, "time", clock)
    return clock


def drawn(clock: Clock, cost: float, seconds: int, **given: float) -> list[float]:
    """When it was done, over so many seconds of steps of a tenth of one."""
    due, times = Cadence(None, 10, **{"first": 4.0, "growth": 2.0, **given}), []
    begun = clock.now
    for step in range(10 * seconds):
        clock.now += 0.1
        if clock.now - begun > seconds:
            break
        if due.due(step):
            times.append(clock.now - begun)
            clock.now += cost
            due.done()
    return times


def test_stretches_grow_to_five_minutes(clock: Clock) -> None:
    times = drawn(clock, 0.0, 2000)
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] == pytest.approx(4, abs=0.2)
    assert gaps[:3] == pytest.approx([8, 16, 32], abs=0.3)
    assert gaps[-1] == pytest.approx(300, abs=1)


@pytest.mark.parametrize("cost", [2.0, 8.0])
def test_what_is_costly_takes_a_small_share_of_the_time(clock: Clock, cost: float) -> None:
    """The first is drawn early whatever it costs; those after it wait for what they cost."""
    times = drawn(clock, cost, 1500)
    assert times[0] == pytest.approx(4, abs=0.2)
    assert cost * (len(times) - 1) < 0.09 * 1500
    assert len(times) > 3


def test_steps_and_epochs_are_kept_to(clock: Clock) -> None:
    for every, wanted in ((5, [0, 5]), ("epoch", [0])):
        due, found = Cadence(every, 10, first=1.0, growth=2.0), []
        for step in range(10):
            if due.due(step):
                found.append(step)
                clock.now += 50
                due.done()
        assert found == wanted
