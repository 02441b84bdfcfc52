from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import couette.denoiser
from couette.config import DiffusionConfig, Spec, spec
from couette.contracts import Cond, Corruption, Level, Scalings
from couette.denoiser import (
    Denoiser,
    build_corruption,
    build_denoiser,
    regular,
    singular,
    target,
)
from couette.errors import ConfigError, ShapeError
from couette.registry import PARAMETERIZATIONS, SCHEDULES, TIMES, TOLD, WEIGHTINGS
from couette.schedules import Table, log_snr, ratio
from couette.validation import parse
from worlds import draw, f64, noised, schedule

VP = "linear"


def level_of(name: str, *times: float) -> Level:
    return schedule(name).level(torch.tensor(times, dtype=torch.float64))


class Answers:
    """A network that gives a prepared answer and remembers what it was handed."""

    wants: frozenset[str] = frozenset()

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        self.x, self.told, self.cond = x, told, cond
        return self.answer


def denoiser(network: Any, name: str, how: str, told: str = "time") -> Denoiser:
    return Denoiser(
        network, Corruption(schedule(name)), PARAMETERIZATIONS[how], TOLD.bind(spec(told))
    )


TIMES_TRIED = (1e-3, 0.1, 0.5, 0.9, 1.0)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("how", list(PARAMETERIZATIONS))
class TestEveryParameterization:
    def test_the_target_gives_back_x0(self, name: str, how: str) -> None:
        """At every level, ends included, and for a row of levels at once."""
        s = schedule(name)
        x0, eps = draw(len(TIMES_TRIED), 1, 3, 4, seed=1), draw(len(TIMES_TRIED), 1, 3, 4, seed=2)
        t = torch.tensor(TIMES_TRIED, dtype=torch.float64)
        if how in ("eps", "score"):  # singular where nothing of x0 is left
            t = torch.where(s.level(t).alpha > 0, t, 0.95)
        level = s.level(t)
        x = noised(s, x0, t[:, None, None, None], eps)
        answer = target(PARAMETERIZATIONS[how](level), level, x0, eps)
        assert torch.allclose(
            denoiser(Answers(answer), name, how)(x, t, {}).x0, x0, rtol=0, atol=1e-10
        )
        for i in range(len(t)):
            one = denoiser(Answers(answer[i : i + 1]), name, how)
            assert torch.allclose(one(x[i : i + 1], t[i], {}).x0, x0[i : i + 1], rtol=0, atol=1e-10)

    def test_the_target_is_its_definition(self, name: str, how: str) -> None:
        """(x0 − skip·x_t)/out, away from the ends where that cancels."""
        s, t = schedule(name), torch.tensor(0.6, dtype=torch.float64)
        x0, eps, level = draw(2, 3, seed=3), draw(2, 3, seed=4), s.level(t)
        scalings = PARAMETERIZATIONS[how](level)
        direct = (x0 - scalings.skip * noised(s, x0, t, eps)) / scalings.out
        assert torch.allclose(target(scalings, level, x0, eps), direct, rtol=1e-9, atol=1e-9)


def target_at(name: str, how: str, t: float) -> tuple[float, float]:
    """The target's coefficients on x0 and on eps."""
    level = level_of(name, t)
    scalings, zero, one = PARAMETERIZATIONS[how](level), torch.zeros(1), torch.ones(1)
    zero, one = zero.double(), one.double()
    on_x0, on_eps = target(scalings, level, one, zero), target(scalings, level, zero, one)
    return float(on_x0), float(on_eps)


@settings(max_examples=30)
@given(t=st.floats(1e-4, 0.9999))
@pytest.mark.parametrize("name", list(SCHEDULES))
def test_what_each_network_predicts(name: str, t: float) -> None:
    level = level_of(name, t)
    alpha, sigma = float(level.alpha), float(level.sigma)
    assume(sigma > 1e-6)  # the coefficients carry an error of 1e-16/sigma
    assert target_at(name, "eps", t) == pytest.approx((0, 1), abs=1e-9)
    # Song et al. 2021: the score of q(x_t | x_0) is −(x_t − α·x0)/σ².
    assert sigma**2 * target_at(name, "score", t)[0] == pytest.approx(0, abs=1e-9)
    assert sigma * target_at(name, "score", t)[1] == pytest.approx(-1, rel=1e-9)
    assert target_at(name, "x0", t) == pytest.approx((1, 0), abs=1e-9)
    assert target_at(name, "flow", t) == pytest.approx((-1, 1), abs=1e-9)
    # Salimans & Ho 2022: v = α·ε − σ·x0.
    assert target_at(name, "v", t) == pytest.approx((-sigma, alpha), rel=1e-9, abs=1e-9)


@given(st.floats(1e-3, 0.999))
def test_v_on_variance_preserving_is_salimans(t: float) -> None:
    """x0 = α·x − σ·v, appendix D."""
    level = level_of(VP, t)
    scalings = PARAMETERIZATIONS["v"](level)
    assert torch.allclose(scalings.skip, level.alpha, rtol=1e-12, atol=0)
    assert torch.allclose(scalings.out, -level.sigma, rtol=1e-12, atol=0)


@given(st.floats(0.05, 1), st.floats(0.1, 2))
def test_edm_on_variance_exploding_is_karras_table_1(t: float, data: float) -> None:
    level = level_of("edm", t)
    scalings = PARAMETERIZATIONS.bind(spec("edm", sigma_data=data))(level)
    sigma = float(level.sigma)
    root = math.sqrt(sigma**2 + data**2)
    expected = (data**2 / root**2, sigma * data / root, 1 / root)
    assert [float(part) for part in scalings] == pytest.approx(expected, rel=1e-12)


@given(st.sampled_from(list(SCHEDULES)), st.floats(0.01, 0.99), st.floats(0.1, 2))
def test_edm_has_unit_variance_in_and_out(name: str, t: float, data: float) -> None:
    """For any alpha: Var(inp·x_t) = Var(target) = 1 where Var(x0) = sigma_data²."""
    level = level_of(name, t)
    scalings = PARAMETERIZATIONS.bind(spec("edm", sigma_data=data))(level)
    power = (level.alpha * data).square() + level.sigma.square()
    assert float(scalings.inp.square() * power) == pytest.approx(1, rel=1e-9)
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    variance = (data * target(scalings, level, one, zero)).square()
    variance = variance + target(scalings, level, zero, one).square()
    assert float(variance) == pytest.approx(1, rel=1e-9)


class TestTold:
    @given(st.integers(2, 5000))
    def test_every_entry_is_told_its_whole_index(self, steps: int) -> None:
        """As float32 too, which is what the network gets: (k + 1)/T·T − 1 alone misses."""
        t = (torch.arange(steps, dtype=torch.float64) + 1) / steps
        told = TOLD["index"](t, level_of("flow", 0.5), steps=steps)
        assert told.tolist() == list(range(steps))
        assert told.float().tolist() == list(range(steps))

    def test_between_the_entries_the_index_is_a_fraction(self) -> None:
        t = torch.tensor(0.3005, dtype=torch.float64)
        assert float(TOLD["index"](t, level_of(VP, 0.3), steps=1000)) == pytest.approx(299.5)

    def test_log(self) -> None:
        level = level_of("edm", 0.0, 0.5, 1.0)
        told = TOLD["log"](torch.zeros(3), level).tolist()
        assert told == pytest.approx([-5, math.log(80 * 0.5**7) / 4, math.log(80) / 4])
        assert float(TOLD["log"](torch.ones(1), level_of("flow", 1.0))) == 5

    def test_time_and_constant(self) -> None:
        t, level = torch.tensor([0.25, 1.0]), level_of("flow", 0.25, 1.0)
        assert TOLD["time"](t, level).tolist() == [250.0, 1000.0]
        assert TOLD["time"](t, level, scale=1.0).tolist() == [0.25, 1.0]
        assert TOLD["constant"](t, level, value=3.0).tolist() == [3.0, 3.0]


# The middles of n equal parts of (0, 1): what an inverse distribution function makes of them are
# the quantiles themselves, without chance.
MIDDLES = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000


class TestTimes:
    @pytest.mark.parametrize("name", list(TIMES))
    @pytest.mark.parametrize("on", list(SCHEDULES))
    def test_lie_in_the_schedule(self, name: str, on: str) -> None:
        t = TIMES[name](schedule(on), MIDDLES)
        assert t.shape == MIDDLES.shape and t.dtype == torch.float64
        assert bool(((t > 0) & (t <= 1)).all())

    @pytest.mark.parametrize("on", list(SCHEDULES))
    def test_log_normal(self, on: str) -> None:
        s = schedule(on)
        t = TIMES["log-normal"](s, MIDDLES, mean=-0.7, std=0.9)
        log = ratio(s.level(t)).log()
        inside = t < 1
        assert float(inside.double().mean()) > 0.99
        exact = -0.7 + 0.9 * torch.special.ndtri(MIDDLES)
        assert torch.allclose(log[inside], exact[inside], rtol=0, atol=1e-8)

    def test_uniform_is_every_time(self) -> None:
        assert torch.equal(TIMES["uniform"](schedule("flow"), MIDDLES), MIDDLES)

    def test_uniform_on_a_table_is_every_entry_equally_often(self) -> None:
        t = TIMES["uniform"](schedule("linear:steps=200"), MIDDLES)
        entry = (t * 200).round().long()
        assert torch.bincount(entry).tolist() == [0] + [100] * 200

    @pytest.mark.parametrize("name", list(TIMES))
    @pytest.mark.parametrize("on", ["flow", "edm", "linear", "zero-terminal"])
    def test_rise_with_u(self, name: str, on: str) -> None:
        assert bool((TIMES[name](schedule(on), MIDDLES).diff() >= 0).all())

    @pytest.mark.parametrize("on", ["flow", "linear"])
    def test_logit_normal(self, on: str) -> None:
        """P(time ≤ t) = Φ((logit t − mean)/std), whatever the schedule."""
        t = TIMES["logit-normal"](schedule(on), MIDDLES, mean=0.4, std=0.8)
        law = torch.distributions.Normal(f64(0.4), f64(0.8))
        assert torch.allclose(law.cdf(torch.logit(t)), MIDDLES, rtol=0, atol=1e-9)

    def test_logit_normal_on_the_flow_is_log_normal(self) -> None:
        s, given = schedule("flow"), {"mean": -0.3, "std": 1.1}
        one, other = (TIMES[name](s, MIDDLES, **given) for name in ("logit-normal", "log-normal"))
        assert torch.allclose(one, other, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("scale", [-1.0, -0.5, 0.0, 0.8, 1.29, 1.75])
    def test_mode_is_esser_equation_20(self, scale: float) -> None:
        """f(u) = 1 − u − s·(cos²(πu/2) − 1 + u), which falls: ours at 1 − u."""
        t = TIMES["mode"](schedule("flow"), 1 - MIDDLES, scale=scale)
        f = 1 - MIDDLES - scale * (torch.cos(math.pi / 2 * MIDDLES).square() - 1 + MIDDLES)
        assert torch.allclose(t, f, rtol=0, atol=1e-14)
        assert bool((t.diff() < 0).all())

    def test_cosine_weighted_on_the_flow_is_cosmap(self) -> None:
        """The density of t is 2/(π − 2πt + 2πt²) (Esser et al. 2024, eq. 21): between neighbours
        lies that much of u."""
        t = TIMES["cosine-weighted"](schedule("flow"), MIDDLES)
        middle = (t[1:] + t[:-1]) / 2
        density = 2 / (math.pi - 2 * math.pi * middle + 2 * math.pi * middle.square())
        assert torch.allclose(MIDDLES.diff() / t.diff(), density, rtol=1e-7, atol=0)

    @pytest.mark.parametrize("on", ["edm", "gvp", "zero-terminal"])
    def test_cosine_weighted_is_the_cosine_schedule_at_uniform_times(self, on: str) -> None:
        s = schedule(on)
        found = ratio(s.level(TIMES["cosine-weighted"](s, MIDDLES)))
        exact = ratio(schedule("gvp").level(MIDDLES))
        inside = exact < ratio(s.level(torch.ones(1)))
        assert float(inside.double().mean()) > 0.99
        assert torch.allclose(found[inside], exact[inside], rtol=1e-8, atol=0)

    @pytest.mark.parametrize("on", ["edm", "flow", "linear"])
    def test_laplace(self, on: str) -> None:
        """P(log-SNR > λ) is one less the distribution's, for levels the schedule has."""
        s = schedule(on)
        t = TIMES["laplace"](s, MIDDLES, mean=0.5, scale=0.7)
        found = log_snr(s.level(t))
        law = torch.distributions.Laplace(f64(0.5), f64(0.7))
        assert bool((t < 1).all())
        assert torch.allclose(1 - law.cdf(found), MIDDLES, rtol=0, atol=1e-9)

    def test_laplace_is_the_laplace_schedule_at_uniform_times(self) -> None:
        s = schedule("laplace")
        assert torch.allclose(TIMES["laplace"](s, MIDDLES), MIDDLES, rtol=1e-12, atol=0)

    def test_levels_beyond_the_end_are_drawn_at_the_end(self) -> None:
        """A table of 300 entries ends at sigma/alpha = 4.45; beyond lie 1 − 2/π·atan(4.45)."""
        s = schedule("linear:steps=300")
        end = float(ratio(s.level(torch.ones(1))))
        share = (TIMES["cosine-weighted"](s, MIDDLES) == 1).double().mean()
        assert float(share) == pytest.approx(1 - 2 / math.pi * math.atan(end), abs=1e-4)

    @pytest.mark.parametrize("on", list(SCHEDULES))
    def test_fixed(self, on: str) -> None:
        s = schedule(on)
        sigma = ratio(s.level(TIMES["fixed"](s, MIDDLES[:3], sigma=0.3)))
        assert sigma.tolist() == pytest.approx([0.3] * 3, rel=1e-12)


class TestDenoiser:
    def test_the_network_is_handed_scaled_float32(self) -> None:
        network = Answers(torch.zeros(3, 2, 4, 4))
        one = denoiser(network, "edm", "edm", told="log")
        x, t = draw(3, 2, 4, 4), torch.tensor(0.7, dtype=torch.float64)
        cond = {"label": torch.tensor([1, 2, 3])}
        one(x, t, cond)
        sigma = float(level_of("edm", 0.7).sigma)
        assert torch.allclose(network.x, (x / math.hypot(sigma, 0.5)).float())
        assert network.x.dtype == network.told.dtype == torch.float32
        assert network.told.tolist() == pytest.approx([math.log(sigma) / 4] * 3)
        assert network.cond is cond

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_time_per_row_is_the_same_as_each_alone(self, dtype: torch.dtype) -> None:
        answer, x = draw(3, 1, 2, 2, seed=5).to(dtype), draw(3, 1, 2, 2, seed=6).to(dtype)
        t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        whole = denoiser(Answers(answer), VP, "v")(x, t, {})
        assert whole.x0.dtype == dtype and whole.base is None and whole.mix is None
        for i in range(3):
            one = denoiser(Answers(answer[i : i + 1]), VP, "v")(x[i : i + 1], t[i], {})
            assert torch.allclose(one.x0, whole.x0[i : i + 1], rtol=1e-6, atol=1e-6)

    def test_gradients_flow(self) -> None:
        x = draw(1, 1, 2, 2).requires_grad_()
        p = denoiser(Answers(torch.zeros(1, 1, 2, 2)), VP, "v")(x, torch.tensor(0.5).double(), {})
        (gradient,) = torch.autograd.grad(p.x0.sum(), x)
        assert gradient.flatten().tolist() == pytest.approx([float(level_of(VP, 0.5).alpha)] * 4)


class TestBuilding:
    def test_index_takes_the_length_of_the_table(self) -> None:
        config = DiffusionConfig(
            schedule=spec("linear", steps=300), parameterization=spec("eps"), told=spec("index")
        )
        network = Answers(torch.zeros(1, 1, 1, 1))
        build_denoiser(config, network)(torch.zeros(1, 1, 1, 1), torch.tensor(0.5).double(), {})
        assert network.told.tolist() == [149.0]

    def test_index_without_a_table_is_refused(self) -> None:
        config = DiffusionConfig(schedule=spec("edm"), told=spec("index"))
        with pytest.raises(ConfigError, match="'edm' has no table"):
            build_denoiser(config, Answers(torch.zeros(1)))

    def test_index_of_a_given_length_needs_no_table(self) -> None:
        config = DiffusionConfig(schedule=spec("flow"), told=spec("index", steps=10))
        network = Answers(torch.zeros(1, 1, 1, 1))
        build_denoiser(config, network)(torch.zeros(1, 1, 1, 1), torch.tensor(0.5).double(), {})
        assert network.told.tolist() == [4.0]

    @pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "flow"])
    def test_uniform_noise_belongs_to_the_flow(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"not to '{name}'"):
            build_corruption(DiffusionConfig(schedule=spec(name), noise="uniform"))

    def test_the_toy_mix(self) -> None:
        corruption = build_corruption(DiffusionConfig(schedule=spec("flow"), noise="uniform"))
        assert corruption.noise == "uniform"

    def test_settings_reach_the_parts(self) -> None:
        config = parse(
            DiffusionConfig,
            {"schedule": "linear:steps=30", "parameterization": "edm:sigma_data=2"},
            "a test",
        )
        built = build_denoiser(config, Answers(torch.zeros(1)))
        assert isinstance(built.corruption.schedule, Table)
        assert built.corruption.schedule.steps == 30
        level = level_of("edm", 0.5)
        assert built.parameterization(level) == couette.denoiser.edm(level, sigma_data=2)

    @pytest.mark.parametrize(
        ("field", "text", "near"),
        [
            ("schedule", "linea", "linear"),
            ("parameterization", "epsi", "eps"),
            ("told", "tim", "time"),
            ("parameterization", "edm:sigma_dta=1", "sigma_data"),
            ("schedule", "linear:step=1", "steps"),
        ],
    )
    def test_typos_name_the_near_miss(self, field: str, text: str, near: str) -> None:
        config = DiffusionConfig(**{field: Spec.model_validate(text)})
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            build_denoiser(config, Answers(torch.zeros(1)))

    def test_a_mode_that_turns_back_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"takes a number of 1\.75194 at most"):
            TIMES.bind(spec("mode", scale=1.8))

    @pytest.mark.parametrize(
        ("registry", "text"),
        [
            (PARAMETERIZATIONS, "edm:sigma_data=0"),
            (WEIGHTINGS, "edm:sigma_data=-1"),
            (WEIGHTINGS, "min-snr:gamma=0"),
            (TIMES, "fixed:sigma=0"),
            (TIMES, "log-normal:std=0"),
            (TIMES, "logit-normal:std=0"),
            (TIMES, "laplace:scale=0"),
        ],
    )
    def test_settings_that_divide_by_zero_are_refused(self, registry: Any, text: str) -> None:
        with pytest.raises(ConfigError, match="greater than 0"):
            registry.bind(Spec.model_validate(text))


def test_eps_and_score_are_singular_at_pure_noise_and_no_other() -> None:
    noise, nearly = level_of("flow", 1.0), level_of("flow", 0.999)
    assert set(PARAMETERIZATIONS) - set(regular(noise)) == {"eps", "score"}
    assert regular(nearly) == list(PARAMETERIZATIONS)
    assert singular(PARAMETERIZATIONS["score"](noise))
    assert not singular(PARAMETERIZATIONS["v"](noise))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "flow", "variance": "learned"}, "'flow' has none; choose one with a table"),
        ({"schedule": "cosine", "variance": "learned", "offset": 0.1}, "leave one of them out"),
        ({"schedule": "flow", "noise": "uniform", "offset": 0.1}, "not to uniform noise"),
    ],
    ids=["learned variance without a table", "offset and learned variance", "offset and uniform"],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    config = parse(DiffusionConfig, fields, "a test")
    with pytest.raises(ConfigError, match=message):
        build_denoiser(config, Answers(torch.zeros(1)))


def test_a_learned_variance_is_the_second_half_of_the_output() -> None:
    """−1 is the exact step's variance, 1 is beta."""
    answer = torch.cat((draw(2, 3, 4, 4), torch.full((2, 3, 4, 4), -1.0).double()), 1)
    answer[1, 3:] = 0.5
    config = DiffusionConfig(
        schedule=spec("cosine"), parameterization=spec("x0"), variance="learned"
    )
    p = build_denoiser(config, Answers(answer))(draw(2, 3, 4, 4), torch.tensor(0.5).double(), {})
    assert torch.equal(p.x0, answer[:, :3])
    assert p.mix is not None and p.mix.shape == (2, 3, 4, 4)
    assert p.mix[0].unique().tolist() == [0.0] and p.mix[1].unique().tolist() == [0.75]


def test_scalings_of_a_row_of_levels_keep_its_shape() -> None:
    level = level_of(VP, 0.1, 0.2, 0.3)
    for how in PARAMETERIZATIONS:
        scalings: Scalings = PARAMETERIZATIONS[how](level)
        assert [part.shape for part in scalings] == [(3,)] * 3


@pytest.mark.parametrize("grown", [1, 3])
def test_a_network_of_another_shape_is_refused(grown: int) -> None:
    """An even kernel, say, makes pictures of another size."""

    def network(x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        return torch.zeros(x.shape[0], x.shape[1], x.shape[2] + grown, x.shape[3])

    denoiser = build_denoiser(DiffusionConfig(), cast(Any, network))
    with pytest.raises(ShapeError, match=r"where \(1, 4, 4\) is needed"):
        denoiser(torch.zeros(2, 1, 4, 4), torch.tensor(0.5, dtype=torch.float64), {})
