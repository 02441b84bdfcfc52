from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from couette.config import Spec
from couette.errors import ConfigError, InputError
from couette.registry import GRIDS, SCHEDULES
from couette.schedules import entries, ratio
from worlds import f64, grid, schedule

RANGED = ["karras", "exponential", "polyexponential", "beta-sigmas"]
COUNTS = [2, 3, 10, 15, 20, 25, 30, 50, 100, 333]


def steps_of(times: Tensor, count: int = 1000) -> Tensor:
    """Where the grid's steps begin, as positions in a table."""
    return times[:-1] * count - 1


@pytest.mark.parametrize("name", list(GRIDS))
class TestEveryGrid:
    @pytest.mark.parametrize("over", ["linear:steps=300", "zero-terminal"])
    @settings(max_examples=15)
    @given(steps=st.integers(1, 300))
    def test_falls_to_zero(self, name: str, over: str, steps: int) -> None:
        times = grid(name, schedule(over), steps)
        assert times.shape == (steps + 1,) and times.dtype == torch.float64
        assert bool((times.diff() < 0).all())
        assert float(times[0]) <= 1 and float(times[-1]) == 0

    @pytest.mark.parametrize("steps", [0, -3])
    def test_refuses_no_steps(self, name: str, steps: int) -> None:
        with pytest.raises(InputError, match="one step or more"):
            GRIDS[name](schedule("linear"), steps)


LAST = {"edm": 80.0, "ve": 50.0, "linear-log-snr": math.exp(2.5)}
"""sigma/alpha at the end of the schedules that stop short of pure noise and are no tables."""
IN_T = ["uniform", "strided", "trailing", "linspace", "beta", "given"]
"""The grids that begin at the very end of the schedule, t = 1."""


def span(over: str) -> tuple[float, float]:
    """sigma/alpha where a grid of levels is to begin and where its last step is to: 80 and 0.002,
    kept to what a table of betas has, from its first to its last, or a schedule its end."""
    s = schedule(over)
    count = entries(s)
    if count is None:
        return min(80.0, LAST.get(over, math.inf)), 0.002
    first, last = ratio(s.level(f64(1 / count, 1))).tolist()
    return min(80.0, last), max(0.002, first)


class TestEveryGridOnEverySchedule:
    """In few steps, as many, and in more than some tables have entries."""

    @pytest.mark.parametrize("steps", [1, 2, 7, 100])
    @pytest.mark.parametrize("over", list(SCHEDULES))
    @pytest.mark.parametrize("name", list(GRIDS))
    def test_falls_to_zero_or_says_why_not(self, name: str, over: str, steps: int) -> None:
        s = schedule(over)
        count = entries(s)
        whole = GRIDS[name] in [GRIDS[each] for each in ("strided", "linspace", "leading")]
        if whole and (count is None or steps > count):
            told = "needs a table of betas" if count is None else f"can't lay {steps} steps"
            with pytest.raises(InputError, match=told):
                grid(name, s, steps)
            return
        times = grid(name, s, steps)
        assert times.shape == (steps + 1,) and times.dtype == torch.float64
        assert bool(times.isfinite().all()) and bool((times.diff() < 0).all())
        assert float(times[-1]) == 0
        if name in IN_T:
            assert float(times[0]) == 1
        elif name in [*RANGED, "log-snr"]:
            ends = ratio(s.level(times[[0, -2]])).tolist()
            top, bottom = span(over)
            assert ends[0] == pytest.approx(top, rel=1e-6)
            assert steps == 1 or ends[1] == pytest.approx(bottom, rel=1e-6)
        else:  # leading: whole strides up from entry 0, a remainder short of the end
            assert float(times[0]) * count == pytest.approx(1 + (steps - 1) * (count // steps))

    def test_every_grid_is_promised_a_beginning(self) -> None:
        """A new one fails here until it is said where it starts."""
        assert set(GRIDS) == {*IN_T, *RANGED, "log-snr", "leading"}


class TestUniform:
    @given(st.integers(1, 200))
    def test_is_even_from_one(self, steps: int) -> None:
        times = grid("uniform", schedule("flow"), steps)
        expected = [1 - i / steps for i in range(steps + 1)]
        assert times.tolist() == pytest.approx(expected, abs=1e-15)
        assert float(times[0]) == 1

    def test_on_edm_is_karras_with_sigma_min_zero(self) -> None:
        s = schedule("edm")
        sigma = s.level(grid("uniform", s, 10)).sigma
        expected = [(80 ** (1 / 7) * (1 - i / 10)) ** 7 for i in range(11)]
        assert sigma.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_shifted_on_the_flow_is_even_on_the_shifted_flow(self) -> None:
        flow, shifted = schedule("flow"), schedule("flow:shift=3")
        ours = flow.level(grid("uniform", flow, 12, shift=3.0)).sigma
        theirs = shifted.level(grid("uniform", shifted, 12)).sigma
        assert torch.allclose(ours, theirs, rtol=1e-14, atol=0)

    def test_shifted_is_what_stable_diffusion_3_steps_on(self) -> None:
        """Its pipeline hands diffusers linspace(1, 1/N, N)."""
        diffusers = pytest.importorskip("diffusers")
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        theirs.set_timesteps(sigmas=np.linspace(1, 1 / 28, 28))
        s = schedule("flow")
        ours = s.level(grid("uniform", s, 28, shift=3.0)).sigma
        assert torch.allclose(ours, theirs.sigmas.double(), rtol=1e-6, atol=0)


class TestGiven:
    def test_is_what_was_given(self) -> None:
        times = grid("given", schedule("edm"), 3, times=(0.9, 0.5, 0.1, 0))
        assert times.tolist() == [0.9, 0.5, 0.1, 0.0]

    def test_in_fewer_steps_takes_some_evenly(self) -> None:
        times = grid("given", schedule("edm"), 3, times=(1, 0.9, 0.7, 0.4, 0.3, 0.2, 0))
        assert times.tolist() == [1.0, 0.7, 0.3, 0.0]

    @pytest.mark.parametrize(
        ("times", "steps", "told"),
        [
            ((1, 0.5, 0), 3, "make 2 steps, not 3"),
            ((), 1, "make 0 steps"),
            ((0,), 1, "make 0 steps"),
            ((1, 0.5, 0.5, 0), 3, "must fall"),
            ((0.5, 1, 0), 2, "must fall"),
            ((1.5, 0), 1, "from at most 1"),
            ((1, 0.5), 1, "to 0"),
        ],
    )
    def test_refuses(self, times: tuple[float, ...], steps: int, told: str) -> None:
        with pytest.raises(InputError, match=told):
            grid("given", schedule("edm"), steps, times=times)


class TestStrided:
    @settings(max_examples=40)
    @given(st.integers(2, 1000), st.data())
    def test_hits_entries_only(self, count: int, data: st.DataObject) -> None:
        steps = data.draw(st.integers(1, count))
        times = grid("strided", schedule(f"linear:steps={count}"), steps)
        position = times * count
        assert torch.allclose(position, position.round(), rtol=0, atol=1e-9)
        assert float(times[0]) == 1
        gaps = -position.diff().round()
        assert float(gaps.min()) >= 1 and float(gaps.max() - gaps.min()) <= 1

    def test_by_all_is_the_whole_table(self) -> None:
        times = grid("strided", schedule("linear"), 1000)
        assert (times * 1000).round().long().tolist() == list(range(1000, -1, -1))

    @settings(max_examples=40)
    @given(st.integers(1, 1000))
    def test_hits_the_nearest_entry(self, steps: int) -> None:
        positions = (grid("strided", schedule("linear"), steps) * 1000).round().tolist()
        for i, position in enumerate(positions):
            assert abs(Fraction(1000 * (steps - i), steps) - int(position)) <= Fraction(1, 2)


@pytest.mark.parametrize("name", ["strided", "linspace", "leading"])
class TestEntries:
    @pytest.mark.parametrize("over", ["edm", "flow"])
    def test_need_a_table(self, name: str, over: str) -> None:
        with pytest.raises(InputError, match=f"'{name}' needs a table"):
            grid(name, schedule(over), 10)

    def test_refuse_more_steps_than_entries(self, name: str) -> None:
        with pytest.raises(InputError, match="can't lay 301 steps"):
            grid(name, schedule("linear:steps=300"), 301)


def test_leading_refuses_an_offset_beyond_the_table() -> None:
    with pytest.raises(InputError, match="from at most 1 to 0"):
        grid("leading", schedule("linear"), 1000, steps_offset=1)


WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""diffusers hands torch's tensors to numpy in a way that numpy 2 will drop."""


@WARNS
class TestDiffusersSpacings:
    """`timestep_spacing`, on their default table of 1000."""

    @pytest.mark.parametrize(
        ("scheduler", "spacing", "ours"),
        [
            ("DDIMScheduler", {}, "linspace"),
            ("DDPMScheduler", {}, "linspace"),
            ("EulerDiscreteScheduler", {}, "linspace:whole=false"),
            ("HeunDiscreteScheduler", {}, "linspace:whole=false"),
            ("DPMSolverMultistepScheduler", {}, "linspace:entry_zero=false"),
            ("UniPCMultistepScheduler", {}, "linspace:entry_zero=false"),
            ("DDIMScheduler", {}, "leading"),
            ("DDIMScheduler", {"steps_offset": 1}, "leading:steps_offset=1"),
            ("EulerDiscreteScheduler", {}, "leading"),
            ("EulerDiscreteScheduler", {"steps_offset": 1}, "leading:steps_offset=1"),
            ("DPMSolverMultistepScheduler", {}, "leading:entry_zero=false"),
            ("DEISMultistepScheduler", {}, "leading:entry_zero=false"),
            (
                "DPMSolverMultistepScheduler",
                {"steps_offset": 1},
                "leading:entry_zero=false,steps_offset=1",
            ),
            ("DDIMScheduler", {}, "trailing"),
            ("EulerDiscreteScheduler", {}, "trailing"),
            ("DPMSolverMultistepScheduler", {}, "trailing"),
        ],
    )
    def test_are_the_same(self, scheduler: str, spacing: dict[str, Any], ours: str) -> None:
        diffusers = pytest.importorskip("diffusers")
        asked = Spec.model_validate(ours)
        theirs = getattr(diffusers, scheduler)(timestep_spacing=asked.name, **spacing)
        for count in COUNTS:
            theirs.set_timesteps(count)
            expected = theirs.timesteps.double()
            if scheduler.startswith("Heun"):  # which names each but the first twice
                expected = torch.cat((expected[:1], expected[1::2]))
            got = steps_of(grid(asked.name, schedule("linear"), count, **asked.settings))
            assert torch.allclose(got, expected, rtol=1e-6, atol=1e-9), count

    @pytest.mark.parametrize(
        ("name", "entry_zero"), [("DDIM", True), ("DPMSolverMultistep", False)]
    )
    def test_linspace_is_the_same_in_any_number_of_steps(self, name: str, entry_zero: bool) -> None:
        diffusers = pytest.importorskip("diffusers")
        theirs = getattr(diffusers, name + "Scheduler")(timestep_spacing="linspace")
        s = schedule("linear")
        for count in range(2, 1000, 3):
            theirs.set_timesteps(count)
            got = steps_of(grid("linspace", s, count, entry_zero=entry_zero))
            assert got.round().tolist() == theirs.timesteps.tolist(), count

    def test_linspace_of_one_step_begins_at_the_noise(self) -> None:
        """Theirs begins at entry 0, with all but no noise; ours where there is nothing else."""
        diffusers = pytest.importorskip("diffusers")
        theirs = diffusers.DDIMScheduler(timestep_spacing="linspace")
        theirs.set_timesteps(1)
        assert theirs.timesteps.tolist() == [0]
        assert grid("linspace", schedule("linear"), 1).tolist() == [1.0, 0.0]

    def test_trailing_differs_by_one_entry_at_most_and_only_at_halves(self) -> None:
        """Their numbers carry the rounding of 1000 − 1000/N, which tips exact halves."""
        diffusers = pytest.importorskip("diffusers")
        theirs, s = diffusers.DDIMScheduler(timestep_spacing="trailing"), schedule("linear")
        for count in range(2, 1000, 3):
            theirs.set_timesteps(count)
            got = steps_of(grid("trailing", s, count)).round()
            other = (got != theirs.timesteps[:count]).nonzero().flatten().tolist()
            assert all((2000 * i / count) % 2 == 1 for i in other)
            assert float((got - theirs.timesteps[:count]).abs().max()) <= 1

    def test_trailing_has_as_many_steps_as_asked(self) -> None:
        """Theirs has one too many where a sum of strides falls short by a rounding: entry −1."""
        diffusers = pytest.importorskip("diffusers")
        theirs = diffusers.DDIMScheduler(timestep_spacing="trailing")
        theirs.set_timesteps(61)
        assert len(theirs.timesteps) == 62 and int(theirs.timesteps[-1]) == -1
        ours = steps_of(grid("trailing", schedule("linear"), 61))
        assert ours.round().tolist() == theirs.timesteps[:61].tolist()


class TestBeta:
    def test_of_one_and_one_is_uniform(self) -> None:
        s = schedule("flow")
        ours = grid("beta", s, 13, alpha=1.0, beta=1.0)
        assert torch.allclose(ours, grid("uniform", s, 13), rtol=0, atol=1e-14)

    def test_of_a_half_and_a_half_is_the_arcsine_law(self) -> None:
        """Whose quantiles are sin²(πu/2)."""
        ours = grid("beta", schedule("flow"), 13, alpha=0.5, beta=0.5)
        u = torch.linspace(1, 0, 14, dtype=torch.float64)
        assert torch.allclose(ours, torch.sin(u * np.pi / 2).square(), rtol=0, atol=1e-12)


class TestNoiseLevels:
    def test_karras_is_equation_5(self) -> None:
        """σ_i = (σ_max^(1/ρ) + i/(N−1)·(σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ, σ_N = 0."""
        s = schedule("edm")
        got = s.level(grid("karras", s, 18)).sigma
        top, bottom = 80 ** (1 / 7), 0.002 ** (1 / 7)
        expected = [(top + i / 17 * (bottom - top)) ** 7 for i in range(18)]
        assert got[:-1].tolist() == pytest.approx(expected, rel=1e-9)
        assert float(got[-1]) == 0

    @pytest.mark.parametrize("over", ["linear", "flow", "edm"])
    def test_karras_means_sigma_over_alpha(self, over: str) -> None:
        s = schedule(over)
        got = ratio(s.level(grid("karras", s, 5, sigma_max=10.0, sigma_min=0.1, rho=3.0)))
        top, bottom = 10 ** (1 / 3), 0.1 ** (1 / 3)
        expected = [(top + i / 4 * (bottom - top)) ** 3 for i in range(5)]
        assert got[:-1].tolist() == pytest.approx(expected, rel=1e-9)

    def test_exponential_falls_by_one_factor(self) -> None:
        s = schedule("gvp")
        got = ratio(s.level(grid("exponential", s, 5, sigma_max=16.0, sigma_min=0.0625)))
        assert got[:-1].tolist() == pytest.approx([16, 4, 1, 0.25, 0.0625], rel=1e-9)

    def test_polyexponential_is_k_diffusions(self) -> None:
        """exp(ramp·(log σ_max − log σ_min) + log σ_min), ramp = linspace(1, 0)^ρ."""
        s = schedule("ve")
        got = ratio(s.level(grid("polyexponential", s, 4, rho=2.0, sigma_max=16.0, sigma_min=2.0)))
        assert got[:-1].tolist() == pytest.approx([16, 2 * 8 ** (4 / 9), 2 * 8 ** (1 / 9), 2])

    @pytest.mark.parametrize("name", RANGED)
    def test_keep_to_the_schedules_own_range(self, name: str) -> None:
        """Down to a table's entry 0, up to its end."""
        steps = steps_of(grid(name, schedule("linear:steps=300"), 10), 300)
        assert steps[[0, -1]].tolist() == pytest.approx([299, 0], abs=1e-9)

    @pytest.mark.parametrize("name", RANGED)
    def test_refuse_an_empty_range(self, name: str) -> None:
        with pytest.raises(InputError, match=f"'{name}' needs 0 < sigma_min < sigma_max"):
            grid(name, schedule("edm"), 5, sigma_min=90.0)

    @pytest.mark.parametrize("name", RANGED)
    @pytest.mark.parametrize("wrong", ["sigma_max=-1", "sigma_min=0"])
    def test_refuse_settings_that_are_not_above_zero(self, name: str, wrong: str) -> None:
        with pytest.raises(ConfigError, match="greater than 0"):
            GRIDS.bind(Spec.model_validate(f"{name}:{wrong}"))

    @WARNS
    @pytest.mark.parametrize("count", [2, 10, 25])
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("karras", "use_karras_sigmas"),
            ("exponential", "use_exponential_sigmas"),
            ("beta-sigmas", "use_beta_sigmas"),
        ],
    )
    def test_diffusers_has_the_same(self, ours: str, theirs: str, count: int) -> None:
        """Both the levels and where its tables place them, its table made float64: 1 − ᾱ of a
        float32 is off by 3e-4 at entry 0."""
        diffusers = pytest.importorskip("diffusers")
        scheduler = diffusers.EulerDiscreteScheduler(**{theirs: True})
        s = schedule("linear")
        scheduler.alphas_cumprod = s.alpha_bar  # type: ignore[attr-defined]
        scheduler.set_timesteps(count)
        times = grid(ours, s, count, sigma_max=1000.0)
        assert torch.allclose(ratio(s.level(times)), scheduler.sigmas.double(), rtol=1e-6, atol=0)
        assert torch.allclose(steps_of(times), scheduler.timesteps.double(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("name", ["karras", "exponential"])
    def test_diffusers_edm_has_the_same(self, name: str) -> None:
        diffusers = pytest.importorskip("diffusers")
        scheduler = diffusers.EDMEulerScheduler(sigma_schedule=name)
        scheduler.set_timesteps(18)
        s = schedule("edm")
        ours = s.level(grid(name, s, 18)).sigma
        assert torch.allclose(ours, scheduler.sigmas.double(), rtol=1e-6, atol=0)
