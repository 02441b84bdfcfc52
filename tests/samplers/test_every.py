"""What every registered sampler must do, whoever wrote it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Noise, Prediction
from couette.errors import InputError
from couette.registry import GRIDS, SAMPLERS, SCHEDULES
from worlds import DOWN, Constant, Crooked, Gaussian, draw, grid, run, schedule

PICTURES = [name for name in SAMPLERS if not SAMPLERS.trait(name, "states")]


def fresh(shape: tuple[int, ...]) -> Noise:
    """A noise callable whose draws are numbered."""
    count = iter(range(10_000))
    return lambda t, u: draw(*shape, seed=next(count))


def times_from(top: float, steps: int) -> Tensor:
    return torch.linspace(top, 0, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("name", DOWN)
class TestEverySampler:
    @pytest.mark.parametrize("on", list(SCHEDULES))
    @pytest.mark.parametrize("steps", [1, 2, 50])
    def test_a_constant_prediction_is_where_it_lands(self, name: str, on: str, steps: int) -> None:
        """From pure noise too, where alpha is 0 on the flow; as sigma ends at 0, to what rounding
        does to x/alpha at the start."""
        denoise = Constant(Corruption(schedule(on)), 0.3)
        x = 3 * draw(2, 1, 4, 4)
        out = run(name, denoise, x, times_from(1.0, steps), fresh(x.shape))
        assert torch.allclose(out[-1].x, torch.full_like(x, 0.3), rtol=0, atol=1e-9)

    def test_yields_each_step_after_its_move(self, name: str) -> None:
        denoise, x, times = Crooked(Corruption(schedule("flow"))), draw(2, 3), times_from(0.9, 7)
        # Churn raises x before it asks about it; without it all ask about the x they yielded.
        still = {"s_churn": 0.0} if "s_churn" in SAMPLERS.settings(name).model_fields else {}
        out = run(name, denoise, x, times, fresh(x.shape), **still)
        if SAMPLERS.trait(name, "adaptive"):
            assert [(step.index, step.count) for step in out] == [
                (i, None) for i in range(len(out))
            ]
        else:
            assert [(step.index, step.count) for step in out] == [(i, 7) for i in range(7)]
            assert [float(step.t) for step in out] == times[1:].tolist()
        assert torch.equal(out[0].x0, denoise(x, times[0], {}).x0)
        for before, step in pairwise(out):
            assert torch.equal(step.x0, denoise(before.x, before.t, {}).x0)

    def test_mutates_nothing(self, name: str) -> None:
        denoise, x, times = Crooked(Corruption(schedule("flow"))), draw(2, 3), times_from(0.9, 5)
        before = x.clone()
        out = SAMPLERS[name](denoise, x, times, {}, fresh(x.shape))
        kept = [(step, step.x.clone(), step.x0.clone()) for step in out]
        assert torch.equal(x, before)
        for step, was_x, was_x0 in kept:
            assert torch.equal(step.x, was_x) and torch.equal(step.x0, was_x0)

    @pytest.mark.parametrize("times", [[0.5], [0.5, 0.5], [0.2, 0.4, 0.0]])
    def test_refuses_times_that_do_not_fall(self, name: str, times: list[float]) -> None:
        denoise = Constant(Corruption(schedule("flow")), 0.0)
        with pytest.raises(InputError, match="each below the one before"):
            run(name, denoise, draw(2, 3), torch.tensor(times, dtype=torch.float64))

    def test_keeps_the_dtype(self, name: str) -> None:
        x = draw(2, 3).float()
        denoise = Crooked(Corruption(schedule("linear")))
        noise = lambda t, u: torch.zeros(2, 3)  # noqa: E731
        out = run(name, denoise, x, times_from(1.0, 3), noise)
        assert all(step.x.dtype == torch.float32 for step in out)

    @pytest.mark.parametrize("on", list(SCHEDULES))
    def test_runs_from_pure_noise_with_an_exact_denoiser(self, name: str, on: str) -> None:
        """With many steps the data's mean comes out, and no rows explode."""
        denoise = Gaussian(schedule(on), mean=0.4, std=0.3)
        level = denoise.corruption.schedule.level(torch.tensor(1.0, dtype=torch.float64))
        x = draw(4000, seed=9) * level.sigma + 0.4 * level.alpha
        end = run(name, denoise, x, times_from(1.0, 60), fresh(x.shape))[-1].x
        assert bool(end.isfinite().all())
        # Fixed draws; five standard errors, beyond which fresh ones fall once in 1.7 million.
        assert float(end.mean()) == pytest.approx(0.4, abs=5 * 0.3 / 4000**0.5)
        assert 0.1 < float(end.std()) < 0.5


def counted(name: str, steps: int) -> int:
    """Evaluations in `steps` steps between ends where nothing is singular."""
    denoise, calls = Crooked(Corruption(schedule("flow"))), []

    class Counted:
        corruption = denoise.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            calls.append(t)
            return denoise(x, t, cond)

    times = torch.linspace(0.8, 0.2, steps + 1, dtype=torch.float64)
    times = times.flip(0) if SAMPLERS.trait(name, "inverse") else times
    run(name, Counted(), draw(2, 3), times, fresh((2, 3)))
    return len(calls)


@pytest.mark.parametrize(
    "name",
    [n for n in DOWN if not (SAMPLERS.trait(n, "noise") or SAMPLERS.trait(n, "adaptive"))],
)
def test_a_start_at_pure_noise_leaves_nothing_behind(name: str) -> None:
    """Where alpha is 0 every method on a grid makes euler's step, and goes on as if begun after."""
    denoise, x, times = Crooked(Corruption(schedule("flow"))), draw(2, 3), times_from(1.0, 8)
    out = run(name, denoise, x, times)
    assert torch.equal(out[0].x, run("euler", denoise, x, times[:2])[-1].x)
    for whole, part in zip(out[1:], run(name, denoise, out[0].x, times[1:]), strict=True):
        assert torch.equal(whole.x, part.x)


@pytest.mark.parametrize("name", PICTURES)
def test_a_step_costs_the_evaluations_it_declares(name: str) -> None:
    each = SAMPLERS.trait(name, "evaluations", 1)
    if each is not None:
        assert counted(name, 9) - counted(name, 6) == 3 * each


@pytest.mark.parametrize("on", ["linear", "flow"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_base_that_equals_x0_changes_nothing(name: str, on: str) -> None:
    """From pure noise to the picture; the adaptive ones take the same steps, too."""
    plain, x = Crooked(Corruption(schedule(on))), draw(2, 3)

    class Based:
        corruption = plain.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            x0 = plain(x, t, cond).x0
            return Prediction(x0, x0.clone())

    times = times_from(1.0, 8)
    times = times.flip(0) if SAMPLERS.trait(name, "inverse") else times
    with_base = run(name, Based(), x, times, fresh(x.shape))
    for mine, other in zip(with_base, run(name, plain, x, times, fresh(x.shape)), strict=True):
        assert torch.allclose(mine.x, other.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in DOWN if not SAMPLERS.trait(name, "noise")])
def test_a_base_apart_from_x0_is_blended_with_it(name: str) -> None:
    """Every method blends x0s or slopes, and with weights that sum to 1: in a world where those are
    the same everywhere, base included, it moves as ddim does."""
    s, x = schedule("flow"), draw(2, 3)

    class SameSlope:
        corruption = Corruption(s)

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            base = (x - 0.3 * s.level(t).sigma) / s.level(t).alpha
            return Prediction(base + 0.01, base)

    class SameX0:
        corruption = Corruption(s)

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(torch.full_like(x, 0.7), torch.full_like(x, -0.2))

    def as_ddim(denoise: Denoise) -> bool:
        out = run(name, denoise, x, times_from(0.9, 8))
        times = torch.stack([times_from(0.9, 8)[0], *(step.t for step in out)])
        ddim = run("ddim", denoise, x, times)
        return torch.allclose(out[-1].x, ddim[-1].x, rtol=1e-9, atol=1e-9)

    assert as_ddim(SameSlope()) or as_ddim(SameX0())


@pytest.mark.parametrize(
    ("name", "given"),
    [(name, {}) for name in PICTURES if not SAMPLERS.trait(name, "mix")]
    + [("ddpm", {"variance": "beta"}), ("ddim", {"eta": 0.5})],
)
def test_others_are_refused_by_the_uniform_mix(name: str, given: dict[str, object]) -> None:
    denoise = Constant(Corruption(schedule("flow"), "uniform"), 0.0)
    with pytest.raises(InputError, match="trained on uniform noise"):
        run(name, denoise, draw(2, 3), times_from(1.0, 3), **given)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS.trait(name, "mix")])
def test_first_order_ones_take_the_uniform_mix_and_ask_for_no_noise(name: str) -> None:
    denoise = Constant(Corruption(schedule("flow"), "uniform"), 0.25)
    assert float(run(name, denoise, draw(1, 1), times_from(1.0, 3))[-1].x) == pytest.approx(0.25)


@settings(max_examples=100)
@given(st.sampled_from(list(GRIDS)), st.integers(2, 12), st.sampled_from(DOWN))
def test_every_grid_drives_every_sampler(name: str, steps: int, sampler: str) -> None:
    s = schedule("linear:steps=60")
    times = grid(name, s, steps)
    out = run(sampler, Constant(Corruption(s), -0.5), draw(2, 2), times, fresh((2, 2)))
    assert len(out) == steps or SAMPLERS.trait(sampler, "adaptive")
    assert torch.allclose(out[-1].x, torch.full((2, 2), -0.5).double(), atol=1e-12)
