from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.config import spec
from couette.contracts import Level
from couette.errors import ConfigError
from couette.registry import SCHEDULES
from couette.schedules import Table, entries, ratio, transition
from worlds import f64, schedule

TABLES = [
    *(name for name in SCHEDULES if issubclass(SCHEDULES[name], Table)),
    "linear:steps=300",
    "zero-terminal:schedule=linear",
]


def table(text: str) -> Table:
    built = schedule(text)
    assert isinstance(built, Table)
    return built


@pytest.mark.parametrize("name", TABLES)
class TestEveryTable:
    def test_entries_are_products_of_betas(self, name: str) -> None:
        s = table(name)
        assert entries(s) == s.steps
        level = s.level((torch.arange(s.steps, dtype=torch.float64) + 1) / s.steps)
        shown = slice(0, s.steps, 37) if s.steps > 100 else slice(None)
        alpha_bar = f64(
            *(math.prod((1 - s.betas[: k + 1]).tolist()) for k in range(s.steps)[shown])
        )
        assert torch.allclose(level.alpha.square()[shown], alpha_bar, rtol=1e-10, atol=0)
        assert torch.allclose(level.sigma.square()[shown], 1 - alpha_bar, rtol=1e-9, atol=0)
        power = level.alpha.square() + level.sigma.square()
        assert torch.allclose(power, torch.ones_like(power), rtol=0, atol=1e-14)

    def test_one_step_is_ho_equation_2(self, name: str) -> None:
        s = table(name)
        levels = s.level(torch.arange(s.steps + 1, dtype=torch.float64) / s.steps)
        earlier = Level(levels.alpha[:-1], levels.sigma[:-1])
        step = transition(earlier, Level(levels.alpha[1:], levels.sigma[1:]))
        assert torch.allclose(step.alpha, (1 - s.betas).sqrt(), rtol=1e-9, atol=0)
        assert torch.allclose(step.sigma.square(), s.betas, rtol=1e-9, atol=1e-14)


class TestBetween:
    """What stands between the entries."""

    def test_log_ratio_is_linear(self) -> None:
        s = table("linear:steps=10")
        low, middle, high = ratio(s.level(f64(0.4, 0.43, 0.5))).log().tolist()
        assert middle == pytest.approx(low + 0.3 * (high - low), rel=1e-12)

    def test_ratio_is_linear_below_the_first(self) -> None:
        s = table("linear:steps=10")
        low, high = ratio(s.level(f64(0.025, 0.1))).tolist()
        assert low == pytest.approx(high / 4, rel=1e-12)

    def test_alpha_over_sigma_is_linear_before_an_end_without_signal(self) -> None:
        s = table("betas:values=(0.1,0.2,0.3,1)")
        levels = s.level(f64(0.75, 0.875, 1.0))
        start, middle, end = (levels.alpha / levels.sigma).tolist()
        assert middle == pytest.approx(start / 2, rel=1e-12)
        assert (end, float(levels.sigma[-1])) == (0.0, 1.0)


class TestLinear:
    def test_is_the_papers(self) -> None:
        s = table("linear")
        assert s.steps == 1000
        assert float(s.betas[0]) == 1e-4
        assert float(s.betas[-1]) == 0.02
        assert torch.allclose(s.betas.diff(), f64((0.02 - 1e-4) / 999), rtol=1e-9, atol=0)
        assert float(s.alpha_bar[-1]) == pytest.approx(4.0358e-5, rel=1e-4)

    def test_how_near_to_pure_noise_it_ends(self) -> None:
        assert float(schedule("linear").level(f64(1.0)).alpha) == pytest.approx(0.00635, abs=5e-6)
        short = float(schedule("linear:steps=300").level(f64(1.0)).alpha)
        assert short == pytest.approx(0.21922, abs=5e-6)


class TestCosine:
    def test_is_the_papers_function(self) -> None:
        s = table("cosine")
        t = f64(0.1, 0.25, 0.5, 0.75, 0.9)
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        f0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert torch.allclose(s.level(t).alpha.square(), f / f0, rtol=1e-10, atol=0)
        assert float(s.betas.max()) == 0.999

    def test_without_a_cap_it_ends_at_pure_noise(self) -> None:
        assert float(schedule("cosine:max_beta=1").level(f64(1.0)).alpha) == 0


class TestSigmoid:
    def test_is_chens_algorithm_1(self) -> None:
        """As printed: (σ(3) − σ(−3 + 6t))/(σ(3) − σ(−3)), by math alone."""

        def sigmoid(z: float) -> float:
            return 1 / (1 + math.exp(-z / 0.9))

        s = table("sigmoid:steps=20,tau=0.9")
        expected = [
            (sigmoid(3) - sigmoid(-3 + 6 * k / 20)) / (sigmoid(3) - sigmoid(-3))
            for k in range(1, 20)
        ]
        assert s.alpha_bar[:-1].tolist() == pytest.approx(expected, rel=1e-12)
        assert float(s.alpha_bar[-1]) == pytest.approx(1e-9, rel=1e-6)

    def test_mirrors_itself(self) -> None:
        bar = table("sigmoid:steps=100").alpha_bar
        assert torch.allclose(bar[:99] + bar[:99].flip(0), torch.ones(99).double(), atol=1e-12)


class TestWrittenOut:
    def test_betas(self) -> None:
        assert table("betas:values=(0.1,0.2,1)").betas.tolist() == [0.1, 0.2, 1.0]

    def test_alpha_bars(self) -> None:
        s = table("alpha-bars:values=(0.9,0.4,0.1,0)")
        assert s.alpha_bar.tolist() == pytest.approx([0.9, 0.4, 0.1, 0], rel=1e-14)

    @pytest.mark.parametrize("values", ["(0.9,0.9)", "(0.4,0.5)", "(1,0.5)", "(0.5,0,0)"])
    def test_alpha_bars_that_do_not_fall_are_refused(self, values: str) -> None:
        with pytest.raises(ConfigError, match="each below the one before"):
            schedule(f"alpha-bars:values={values}")

    def test_values_must_be_given(self) -> None:
        with pytest.raises(ConfigError, match="'values' is missing"):
            SCHEDULES.check(spec("betas"))

    @pytest.mark.parametrize(
        "betas", [[0.1], [1.0], [], [1.0, 0.1], [0.1, 1.1], [0.0, 0.1], [0.1, math.nan]]
    )
    def test_bad_betas_are_refused(self, betas: list[float]) -> None:
        with pytest.raises(ConfigError, match="between 0 and 1"):
            Table(torch.tensor(betas))


@pytest.mark.parametrize("text", ["linear:steps=-5", "linear:steps=1", "cosine:steps=0"])
def test_bad_lengths_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="steps"):
        schedule(text)


class TestDiffusers:
    """Their tables are float32: betas to 1e-6."""

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("linear", {"beta_schedule": "linear"}),
            ("linear:steps=300", {"beta_schedule": "linear", "num_train_timesteps": 300}),
            (
                "scaled-linear",
                {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
            ),
            ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
            ("sigmoid-betas", {"beta_schedule": "sigmoid"}),
            ("betas:values=(0.1,0.2,0.3)", {"trained_betas": [0.1, 0.2, 0.3]}),
        ],
    )
    def test_has_the_same_tables(self, ours: str, theirs: dict[str, Any]) -> None:
        diffusers = pytest.importorskip("diffusers")
        s, other = table(ours), diffusers.DDPMScheduler(**theirs)
        assert torch.allclose(s.betas, other.betas.double(), rtol=1e-6, atol=0)
        # Where 1 − β is 0.001, as at cosine's end, a float32 rounding is worth 1e-5.
        least = 3e-5 if ours == "cosine" else 2e-6
        assert torch.allclose(s.alpha_bar, other.alphas_cumprod.double(), rtol=least, atol=0)

    @pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine"])
    def test_rescales_alike(self, name: str) -> None:
        """Their function in float64, in which it can be told from a near miss."""
        ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
        theirs: Tensor = ddim.rescale_zero_terminal_snr(table(name).betas)
        ours = table(f"zero-terminal:schedule={name}").betas
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-15)
        assert float(ours[-1]) == 1
