from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.config import Spec
from couette.errors import ConfigError, UnknownName
from couette.registry import SCHEDULES
from couette.schedules import Table, ZeroTerminal, entries, log_snr, ratio
from worlds import f64, schedule

inside = st.floats(1e-3, 0.999)


def log_snr_at(text: str, t: float) -> float:
    return float(log_snr(schedule(text).level(f64(t))))


def test_edm_is_karras() -> None:
    level = schedule("edm").level(f64(1.0, 0.5))
    assert level.alpha.tolist() == [1.0, 1.0]
    assert level.sigma.tolist() == [80.0, 80 * 0.5**7]
    with pytest.raises(ConfigError, match="above 0"):
        schedule("edm:sigma_max=0")


class TestFlow:
    def test_is_a_straight_line(self) -> None:
        level = schedule("flow").level(f64(0.25))
        assert (float(level.alpha), float(level.sigma)) == (0.75, 0.25)
        assert entries(schedule("flow")) is None

    @given(inside, st.floats(0.1, 20))
    def test_shift_is_esser_equation_23(self, t: float, shift: float) -> None:
        level = schedule(f"flow:shift={shift}").level(f64(t))
        moved = shift * t / (1 + (shift - 1) * t)
        assert float(level.sigma) == pytest.approx(moved, rel=1e-12)
        assert float(level.alpha) == pytest.approx(1 - moved, rel=1e-9)

    @pytest.mark.parametrize("shift", [1.0, 3.0])
    def test_diffusers_has_the_same(self, shift: float) -> None:
        diffusers = pytest.importorskip("diffusers")
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift).sigmas.double()
        t = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
        ours = schedule(f"flow:shift={shift}").level(t).sigma
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


def test_gvp_is_a_quarter_turn() -> None:
    level = schedule("gvp").level(f64(0.0, 1 / 3, 0.5, 1.0))
    assert level.alpha.tolist() == pytest.approx([1, math.sqrt(3) / 2, math.sqrt(0.5), 0])
    assert level.sigma.tolist() == pytest.approx([0, 0.5, math.sqrt(0.5), 1])
    assert float(level.alpha[-1]) == 0


class TestVP:
    @given(inside)
    def test_is_song_equation_33(self, t: float) -> None:
        expected = math.exp(-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1)
        level = schedule("vp").level(f64(t))
        assert float(level.alpha) == pytest.approx(expected, rel=1e-12)
        assert float(level.sigma) == pytest.approx(math.sqrt(1 - expected**2), rel=1e-9)

    def test_linear_comes_near_it_as_its_table_grows(self) -> None:
        """Betas β(t)/T: half the distance with twice the entries."""
        t, exact = f64(0.25, 0.5, 1.0), schedule("vp")
        errors = []
        for steps in (1000, 2000):
            table = schedule(f"linear:steps={steps},beta_min={0.1 / steps},beta_max={20 / steps}")
            gap = log_snr(table.level(t)) - log_snr(exact.level(t))
            errors.append(float(gap.abs().max()))
        assert errors[0] < 0.1
        assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)

    def test_betas_that_fall_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="must not be below beta_min"):
            schedule("vp:beta_min=2,beta_max=1")


class TestGeometric:
    @given(st.floats(0.1, 1))
    def test_log_snr_is_a_straight_line(self, t: float) -> None:
        """But for the bend at the clean end, of less than e^(−span·t)."""
        bend = -math.log1p(-math.exp(-18.3 * t))
        assert log_snr_at("linear-log-snr", t) == pytest.approx(13.3 - 18.3 * t + bend, rel=1e-9)
        assert bend < 1.2 * math.exp(-18.3 * t)

    @given(inside)
    def test_ve_is_song_equation_29(self, t: float) -> None:
        """σ²(t) − σ²(0) with σ(t) = σ_min·(σ_max/σ_min)^t, and alpha 1."""
        level = schedule("ve").level(f64(t))
        variance = (0.01 * 5000**t) ** 2 - 0.01**2
        assert float(level.alpha) == 1
        assert float(level.sigma) == pytest.approx(math.sqrt(variance), rel=1e-9)

    def test_the_same_ratios_in_both_kinds(self) -> None:
        t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
        line = f"linear-log-snr:log_snr_max={math.log(1e4)},log_snr_min={-math.log(2500)}"
        ours, theirs = (ratio(schedule(name).level(t)) for name in ("ve", line))
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)

    @pytest.mark.parametrize(
        "text", ["linear-log-snr:log_snr_min=14", "ve:sigma_min=60", "ve:sigma_max=0.01"]
    )
    def test_ends_that_are_crossed_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="must be above"):
            schedule(text)


class TestLaplace:
    @given(inside)
    def test_log_snr_is_laplace_distributed(self, t: float) -> None:
        """At a uniform t: the share of times above a log-SNR is the distribution's."""
        law = torch.distributions.Laplace(f64(-1.0), f64(0.7))
        found = f64(log_snr_at("laplace:mean=-1,scale=0.7", t))
        assert 1 - float(law.cdf(found)) == pytest.approx(t, rel=1e-9)

    def test_diffusers_takes_alpha_for_alpha_bar(self) -> None:
        """Its "laplace" table multiplies up to our alpha, where ᾱ = alpha² is meant: its noise is
        that of twice the steps. It also moves each t by 5e-7 toward 1/2."""
        diffusers = pytest.importorskip("diffusers")
        theirs = diffusers.DDPMScheduler(beta_schedule="laplace").betas.double()
        t = torch.arange(1001, dtype=torch.float64) / 1000
        nudged = t + torch.where(t > 0.5, -5e-7, 5e-7)
        alpha = schedule("laplace").level(nudged).alpha
        ours = (1 - alpha[1:] / alpha[:-1]).clamp(max=0.999)
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)


class TestShifted:
    @pytest.mark.parametrize("inner", ["cosine", "linear", "gvp", "zero-terminal", "laplace"])
    @given(t=inside)
    def test_is_hoogebooms_log_snr(self, inner: str, t: float) -> None:
        """log-SNR + 2·log(64/d) for pictures of d = 256, variance still 1."""
        level = schedule(f"shifted:schedule={inner},shift=4").level(f64(t))
        expected = log_snr_at(inner, t) + 2 * math.log(64 / 256)
        assert float(log_snr(level)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        power = level.alpha.square() + level.sigma.square()
        assert float(power) == pytest.approx(1, rel=1e-12)

    @pytest.mark.parametrize(
        ("shifted", "same"),
        [
            ("shifted:schedule=flow,shift=3", "flow:shift=3"),
            ("shifted:schedule=edm,shift=2", "edm:sigma_max=160"),
            ("shifted:schedule=ve,shift=0.5", "ve:sigma_min=0.005,sigma_max=25"),
            ("shifted:schedule=cosine,shift=1", "cosine"),
        ],
    )
    def test_stays_of_its_kind(self, shifted: str, same: str) -> None:
        t = torch.linspace(0, 1, 101, dtype=torch.float64)
        ours, theirs = schedule(shifted).level(t), schedule(same).level(t)
        assert torch.allclose(ours.alpha, theirs.alpha, rtol=1e-12, atol=1e-15)
        assert torch.allclose(ours.sigma, theirs.sigma, rtol=1e-12, atol=0)

    def test_keeps_the_tables_length(self) -> None:
        assert entries(schedule("shifted:schedule=linear:steps=300")) == 300
        assert entries(schedule("shifted:schedule=flow")) is None

    def test_takes_an_inner_schedule_with_settings(self) -> None:
        """In brackets where there are several; and one made of one made of one."""
        short = schedule("shifted:schedule=(linear:steps=300,beta_max=0.03),shift=2")
        plain = schedule("linear:steps=300,beta_max=0.03")
        t = f64(0.5)
        assert float(ratio(short.level(t))) == pytest.approx(2 * float(ratio(plain.level(t))))
        nested = schedule("shifted:schedule=zero-terminal:schedule=linear,shift=2")
        assert float(nested.level(f64(1.0)).alpha) == 0

    @pytest.mark.parametrize(
        "text",
        ["shifted:schedule=linear:steps=300", "shifted:schedule=(linear:steps=30,beta_max=0.1)"],
    )
    def test_is_written_as_it_is_read(self, text: str) -> None:
        asked = Spec.model_validate(text)
        checked = Spec(name="shifted", **SCHEDULES.check(asked))
        again = Spec(name="shifted", **SCHEDULES.check(Spec.model_validate(str(checked))))
        assert again == checked
        assert str(asked) == text

    @pytest.mark.parametrize("inner", ["linea", "", "shifted:schedule=x"])
    def test_an_unknown_inner_schedule_is_refused(self, inner: str) -> None:
        with pytest.raises(UnknownName, match="no schedule"):
            schedule(f"shifted:schedule={inner}")

    def test_a_bad_setting_of_the_inner_schedule_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="'step' in schedule 'linear'"):
            schedule("shifted:schedule=linear:step=3")
        with pytest.raises(ConfigError, match="can't be read at 'steps'"):
            schedule("shifted:schedule=linear:steps")


class TestZeroTerminal:
    def test_is_lins_algorithm_1(self) -> None:
        inner, ours = schedule("linear"), schedule("zero-terminal:schedule=linear")
        assert isinstance(inner, Table) and isinstance(ours, Table)
        before, after = inner.alpha_bar.sqrt(), ours.alpha_bar.sqrt()
        assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-14)
        assert float(after[-1]) == 0
        # An affine map of sqrt(ᾱ): ratios of differences stay.
        gaps, moved = before.diff(), after.diff()
        assert torch.allclose(moved / moved[0], gaps / gaps[0], rtol=1e-6, atol=0)

    @pytest.mark.parametrize("inner", ["flow", "edm", "shifted:schedule=linear"])
    def test_needs_a_table(self, inner: str) -> None:
        with pytest.raises(ConfigError, match="rescales a table"):
            ZeroTerminal(schedule=inner)
