from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.errors import ConfigError, InputError
from couette.registry import SAMPLERS
from worlds import Constant, Gaussian, Mixture, draw, run, schedule

ADAPTIVE = [name for name in SAMPLERS if SAMPLERS.trait(name, "adaptive")]


def even(top: float, steps: int) -> Tensor:
    return torch.linspace(top, 0, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("text", ["flow", "edm", "ve", "vp", "gvp", "laplace"])
def test_the_tolerance_holds_from_pure_noise_to_the_picture(
    name: str, steps: int, text: str
) -> None:
    """However few steps the grid has: the moves at the ends are short enough not to count."""
    s = schedule(text)
    world, times = Gaussian(s, 0.4, 0.3), even(1.0, steps)
    start, end = (s.level(t) for t in (times[0], times[-1]))
    x = draw(16, 3) * torch.hypot(start.alpha, start.sigma)
    out = run(name, world, x, times, rtol=1e-6, atol=1e-6)
    missed = (out[-1].x - world.carried(x, start, end)).abs().max()
    assert missed < 2e-5
    assert float(out[-1].t) == 0


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_table_ends_at_its_first_entry(name: str) -> None:
    """A network has been told nothing of the times below it."""
    asked: list[float] = []
    inner = Gaussian(schedule("linear:steps=300"), 0.4, 0.3)

    class Told:
        corruption = inner.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            asked.append(float(t))
            return inner(x, t, cond)

    out = run(name, Told(), draw(4), even(1.0, 5))
    assert min(asked) == pytest.approx(1 / 300)
    assert torch.equal(out[-1].x, out[-1].x0)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_grid_between_does_not_matter(name: str) -> None:
    world, x = Mixture(schedule("flow")), draw(5)
    few, many = (torch.tensor([0.9, 0.8, *rest, 0.1]).double() for rest in ([], [0.5, 0.4, 0.3]))
    one, other = (run(name, world, x, times)[-1].x for times in (few, many))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "each"), [("dopri5", 6), ("bosh3", 3)])
def test_the_last_look_is_the_next_steps_first(name: str, each: int) -> None:
    """Without an error no step is refused, and each is five times as long as the last."""
    inner, calls = Constant(Corruption(schedule("flow")), 0.3), []

    class Counted:
        corruption = inner.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            calls.append(float(t))
            return inner(x, t, cond)

    times = torch.linspace(0.9, 0.1, 101, dtype=torch.float64)
    out = run(name, Counted(), draw(2, 3), times)
    assert len(calls) == 1 + each * len(out)
    lams = [float(((1 - t) / t).log()) for t in (times[0], *(step.t for step in out))]
    assert (lams[2] - lams[1]) / (lams[1] - lams[0]) == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_pictures_in_a_batch_and_alone_agree_to_the_tolerance(name: str) -> None:
    world, x = Mixture(schedule("flow")), draw(8, 3)
    times, tight = torch.tensor([0.95, 0.9, 0.1]).double(), {"rtol": 1e-5, "atol": 1e-5}
    together = run(name, world, x, times, **tight)[-1].x
    alone = torch.cat([run(name, world, each, times, **tight)[-1].x for each in x.split(1)])
    assert 0 < float((together - alone).abs().max()) < 1e-4


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_refused(name: str, value: float) -> None:
    denoise = Constant(Corruption(schedule("flow")), value)
    with pytest.raises(InputError, match=r"No step from t = 0\.9 .* not finite"):
        run(name, denoise, draw(2, 3), torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_tolerance_beyond_float32_is_refused(name: str) -> None:
    x, times = draw(2, 3).float(), torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    with pytest.raises(InputError, match="finer than the arithmetic of"):
        run(name, Constant(Corruption(schedule("flow")), 0.3), x, times, rtol=1e-7)


@pytest.mark.parametrize("text", ["dopri5:rtol=0", "bosh3:atol=-1"])
def test_tolerances_are_above_0(text: str) -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        SAMPLERS.bind(Spec.model_validate(text))
