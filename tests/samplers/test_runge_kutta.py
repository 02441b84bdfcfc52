from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.contracts import Corruption
from couette.registry import SCHEDULES
from couette.samplers.adaptive import BOGACKI_SHAMPINE, DORMAND_PRINCE
from couette.samplers.runge_kutta import HEUN, KUTTA, MIDPOINT, Tableau
from worlds import Crooked, draw, run, schedule

TABLES = [HEUN, MIDPOINT, KUTTA, DORMAND_PRINCE.table, BOGACKI_SHAMPINE.table]


@pytest.mark.parametrize("table", TABLES, ids=["heun", "midpoint", "kutta", "dopri5", "bosh3"])
def test_rows_sum_to_their_nodes_and_weights_to_1(table: Tableau) -> None:
    assert [sum(row) for row in table.rows] == pytest.approx(table.nodes, abs=1e-14)
    assert sum(table.weights) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("pair", [DORMAND_PRINCE, BOGACKI_SHAMPINE], ids=["dopri5", "bosh3"])
def test_a_pairs_last_look_is_its_end(pair) -> None:  # type: ignore[no-untyped-def]
    assert (*pair.table.rows[-1], 0) == pair.table.weights and pair.table.nodes[-1] == 1
    assert sum(pair.check) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("name", ["midpoint", "rk4"])
def test_one_step_by_hand(name: str, on: str) -> None:
    """In X = x/alpha and S = sigma/alpha, dX/dS = (X − x0)/S."""
    s = schedule(on)
    denoise, x = Crooked(Corruption(s)), draw(3, 2)
    t, u = torch.tensor([0.7, 0.5], dtype=torch.float64)
    a, b = s.level(t), s.level(u)

    def f(X: Tensor, S: Tensor) -> Tensor:
        at = s.time(-2 * S.log())
        return (X - denoise(X * s.level(at).alpha, at, {}).x0) / S

    X, S, h = x / a.alpha, a.sigma / a.alpha, b.sigma / b.alpha - a.sigma / a.alpha
    k1 = f(X, S)
    k2 = f(X + h / 2 * k1, S + h / 2)
    k3 = f(X + h / 2 * k2, S + h / 2)
    k4 = f(X + h * k3, S + h)
    slope = k2 if name == "midpoint" else (k1 + 2 * k2 + 2 * k3 + k4) / 6
    (step,) = run(name, denoise, x, torch.stack((t, u)))
    assert torch.allclose(step.x, b.alpha * (X + h * slope), rtol=1e-9, atol=1e-9)


def test_midpoint_takes_the_last_step_whole() -> None:
    """Halfway to sigma = 0 nothing is singular, so it is of second order to the picture itself."""
    denoise, x = Crooked(Corruption(schedule("edm"))), draw(3, 2)
    times = torch.tensor([0.5, 0.0], dtype=torch.float64)
    (step,) = run("midpoint", denoise, x, times)
    sigma = denoise.corruption.schedule.level(times[0]).sigma
    middle = (x + denoise(x, times[0], {}).x0) / 2
    half = denoise.corruption.schedule.time(-2 * (sigma / 2).log())
    slope = (middle - denoise(middle, half, {}).x0) / (sigma / 2)
    assert torch.allclose(step.x, x - sigma * slope, rtol=1e-9, atol=1e-9)
