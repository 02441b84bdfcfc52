from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.errors import ConfigError, InputError
from couette.registry import SAMPLERS
from worlds import Constant, Mixture, draw, run, schedule

ADAPTIVE = [name for name in SAMPLERS if SAMPLERS.trait(name, "adaptive")]


def even(top: float, steps: int) -> Tensor:
    return torch.linspace(top, 0, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_both_ends_are_plain_moves(name: str) -> None:
    """Pure noise and sigma = 0 are left and reached by the grid's own first and last step."""
    world, x, times = Mixture(schedule("flow")), draw(5), even(1.0, 10)
    out = run(name, world, x, times)
    assert torch.equal(out[0].x, run("euler", world, x, times[:2])[-1].x)
    assert [float(out[k].t) for k in (0, -2, -1)] == [times[1], times[-2], 0]
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
