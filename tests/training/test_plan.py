"""How long a run is, and the learning rate along it."""

from __future__ import annotations

from typing import Any

import pytest

from couette.config import TrainingConfig
from couette.training.plan import Plan


def plan(samples: int = 100, **fields: Any) -> Plan:
    defaults: dict[str, Any] = {"batch": 10, "lr": 1.0, "warmup": 0, "average": 0}
    return Plan(TrainingConfig(**{**defaults, **fields}), samples)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 3}, 30),
        ({"epochs": 0.25}, 3),
        ({"epochs": 1e-9}, 1),
        ({"epochs": 2, "batch": 64}, 4),
        ({}, 1000),
        ({"minutes": 1}, None),
    ],
)
def test_total(fields: dict[str, Any], total: int | None) -> None:
    assert plan(**fields).total == total


def test_done() -> None:
    assert [plan(steps=3).done(step) for step in (0, 2, 3, 4)] == [False, False, True, True]
    assert not plan(minutes=1).done(10**9)


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
        ("exponential", [1, 0.562341, 0.316228, 0.177828, 0.1]),
    ],
)
def test_decay(decay: str, wanted: list[float]) -> None:
    run = plan(steps=100, decay=decay)
    assert [run.lr(step) for step in (0, 25, 50, 75, 100)] == pytest.approx(wanted, abs=1e-6)


def test_exponential_decay_steps_once_an_epoch() -> None:
    """Berkeley's γ = 0.1^(1/epochs), after each epoch."""
    run = plan(epochs=4, decay="exponential")
    assert [run.lr(step) for step in (0, 9, 10, 19, 20, 39)] == pytest.approx(
        [1, 1, 0.1**0.25, 0.1**0.25, 0.1**0.5, 0.1**0.75]
    )


def test_warmup_rises_to_the_peak_and_fits_short_runs() -> None:
    long = plan(steps=1000, warmup=4, lr=2.0)
    assert [long.lr(step) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    short = plan(steps=10, warmup=100)
    assert [short.lr(step) for step in range(3)] == [0.5, 1.0, 1.0]


class TestMinutes:
    def run(self, clock: Clock, seconds: float, minutes: float = 1.0) -> tuple[Plan, list[float]]:
        """Train with steps of this length; the plan and the learning rates."""
        config = TrainingConfig(minutes=minutes, batch=10, lr=1.0, warmup=0, decay="linear")
        run, rates, step = Plan(config, 100, clock), [], 0
        while not run.done(step):
            rates.append(run.lr(step))
            clock.now += seconds
            step += 1
            run.passed(step)
        return run, rates

    @pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0])
    def test_fits_the_time_and_decays_to_nothing(self, seconds: float) -> None:
        run, rates = self.run(Clock(), seconds)
        assert len(rates) == pytest.approx(60 / seconds, rel=0.02, abs=1)
        assert rates[0] == 1
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] <= 2 / len(rates) + 1e-9
        assert run.seconds == pytest.approx(60, abs=seconds)

    def test_the_rate_never_rises_again_whatever_the_pace_does(self) -> None:
        """Steps of very different length, so that the planned total swings."""
        clock = Clock()
        config = TrainingConfig(minutes=1, batch=10, lr=1.0, warmup=5, decay="linear")
        run, rates, totals, step = Plan(config, 100, clock), [], set(), 0
        while not run.done(step):
            rates.append(run.lr(step))
            clock.now += 4.0 if step % 9 == 8 else 0.2
            step += 1
            run.passed(step)
            totals.add(run.total)
        assert len(totals) > 5
        assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=0.03)
        assert rates[5:] == sorted(rates[5:], reverse=True)
        assert rates[-1] < 0.1

    def test_ends_in_time_where_the_machine_slows_down(self) -> None:
        clock = Clock()
        run = Plan(TrainingConfig(minutes=1, batch=10), 100, clock)
        step = 0
        while not run.done(step):
            clock.now += 0.1 if clock.now < 1040 else 1.0
            step += 1
            run.passed(step)
        assert clock.now - 1000 == pytest.approx(60, abs=1.01)

    def test_uses_the_time_where_the_first_steps_were_slow(self) -> None:
        """Three steps of a second and then a thousand a second: the run does not end early."""
        clock = Clock()
        run = Plan(TrainingConfig(minutes=1, batch=10), 100, clock)
        step = 0
        while not run.done(step):
            clock.now += 1.0 if step < 3 else 0.001
            step += 1
            run.passed(step)
        assert clock.now - 1000 == pytest.approx(60, abs=0.1)
        assert step == pytest.approx(57_000, rel=0.01)

    def test_steps_longer_than_the_budget(self) -> None:
        run, rates = self.run(Clock(), 500.0)
        assert len(rates) == 1
        assert run.total == 1

    def test_a_restored_plan_is_kept_and_its_clock_goes_on(self) -> None:
        clock = Clock()
        config = TrainingConfig(minutes=1, batch=10)
        first = Plan(config, 100, clock)
        for step in range(1, 31):
            clock.now += 1.0
            first.passed(step)
        state = first.state()
        assert state["total"] == 60

        clock.now += 10_000  # the machine was off
        again = Plan(config, 100, clock)
        again.load(state)
        assert (again.total, again.seconds) == (60, 30.0)
        again.passed(31)
        assert again.total == 60

    def test_another_length_stands(self) -> None:
        state = plan(steps=30).state()
        for fields, total in (({"steps": 50}, 50), ({"epochs": 1}, 10), ({"minutes": 1}, None)):
            longer = plan(**fields)
            longer.load(state)
            assert longer.total == total

    def test_the_plan_is_steady_where_grids_and_neighbours_interrupt(self) -> None:
        """Every 7th step takes thirty times as long: the total does not swing with it."""
        clock = Clock()
        run, totals, step = Plan(TrainingConfig(minutes=3, batch=10), 100, clock), [], 0
        while not run.done(step):
            clock.now += 9.0 if step % 7 == 3 else 0.3
            step += 1
            run.passed(step)
            if run.total is not None and clock.now > 1060:
                totals.append(run.total)
        assert max(totals) < 1.35 * min(totals)
