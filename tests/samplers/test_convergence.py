"""Every method that declares an order has it, on a world that is not linear, exactly known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Denoise
from couette.registry import SAMPLERS
from couette.samplers.adaptive import BOGACKI_SHAMPINE, DORMAND_PRINCE, Pair
from couette.samplers.runge_kutta import runge_kutta
from worlds import Mixture, run, schedule

ORDERED = [name for name in SAMPLERS if SAMPLERS.trait(name, "order")]
FROM, TO = 0.6, 0.1
"""The interval of sigma/alpha: it begins where the two bumps part, so that the error of a method's
first steps counts from few steps on."""


def grid(world: Mixture, steps: int) -> Tensor:
    """Even in t, so uneven in sigma/alpha and in its logarithm."""
    s = world.corruption.schedule
    ends = s.time(-2 * torch.tensor([FROM, TO], dtype=torch.float64).log())
    return torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)


def error(world: Mixture, times: Tensor, name: str, **given: Any) -> float:
    """The mean distance from the exact answer, of points from all over the two bumps."""
    a, b = (world.corruption.schedule.level(t) for t in (times[0], times[-1]))
    x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64) * torch.hypot(*a)
    end = run(name, world, x, times, **given)[-1].x
    return float((end - world.carried(x, a, b)).abs().mean())


def measured(on: str, name: str, steps: int, **given: Any) -> float:
    world, errors = Mixture(schedule(on)), []
    for n in (steps, 2 * steps):
        times = grid(world, n)
        times = times.flip(0) if SAMPLERS.trait(name, "inverse") else times
        errors.append(error(world, times, name, **given))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
@pytest.mark.parametrize("name", ORDERED)
def test_the_order_is_what_is_declared(name: str, on: str) -> None:
    """On a table, whose levels have kinks at its entries, with alpha = 1, on a straight line."""
    assert measured(on, name, 64) == pytest.approx(SAMPLERS.trait(name, "order"), abs=0.15)


@pytest.mark.parametrize(
    ("name", "given", "order"),
    [
        ("lms", {"order": 1}, 1),
        ("lms", {"order": 2}, 2),
        ("lms", {"order": 3}, 2),
        ("deis", {"order": 1}, 1),
        ("deis", {"order": 2}, 2),
        ("deis", {"order": 4}, 2),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 2, "variant": "bh1"}, 3),
        ("unipc", {"order": 3}, 3),
        ("unipc", {"order": 3, "variant": "bh1"}, 3),
    ],
    ids=lambda value: str(value),
)
def test_the_order_of_other_settings(name: str, given: dict[str, Any], order: int) -> None:
    """unipc with order 3 is of the fourth but for its first step, of which this interval tells."""
    assert measured("edm", name, 128, **given) == pytest.approx(order, abs=0.15)


class Following:
    """A registered name for a pair's first method on a fixed grid."""


@pytest.mark.parametrize(
    "pair", [DORMAND_PRINCE, BOGACKI_SHAMPINE], ids=["dormand-prince", "bogacki-shampine"]
)
def test_the_pairs_have_their_orders_on_a_fixed_grid(pair: Pair) -> None:
    """The one that is followed, and the one that checks it, an order below."""
    check = pair.table._replace(weights=pair.check)
    for table, order in ((pair.table, pair.order), (check, pair.order - 1)):
        world, errors = Mixture(schedule("flow")), []
        for steps in (8, 16):
            times = grid(world, steps)
            a, b = (world.corruption.schedule.level(t) for t in (times[0], times[-1]))
            x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64) * torch.hypot(*a)
            *_, last = runge_kutta(world, x, times, {}, table)
            errors.append(float((last.x - world.carried(x, a, b)).abs().mean()))
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def ends(world: Denoise) -> Tensor:
    return torch.tensor([0.99, 0.5, 0.02], dtype=torch.float64)


@pytest.mark.parametrize("name", [n for n in SAMPLERS if SAMPLERS.trait(n, "adaptive")])
@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
def test_tolerances_are_kept(name: str, on: str) -> None:
    """The error at the end follows the tolerance down, and never exceeds it by far."""
    world = Mixture(schedule(on))
    times = torch.tensor([0.95, 0.9, 0.1], dtype=torch.float64)
    errors = [error(world, times, name, rtol=tol, atol=tol) for tol in (1e-2, 1e-4, 1e-6)]
    print(errors)
    for found, tol in zip(errors, (1e-2, 1e-4, 1e-6), strict=True):
        assert found < 3 * tol
