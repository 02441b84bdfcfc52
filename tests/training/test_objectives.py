"""What the objective's options change, and that they change nothing when off."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig, Spec, TrainingConfig
from couette.contracts import Batch, Cond, Level, Prediction
from couette.denoiser import bound_term, build_denoiser, target
from couette.errors import ConfigError
from couette.registry import PAIRINGS, PARAMETERIZATIONS, SCHEDULES, WEIGHTINGS
from couette.schedules import entries
from couette.tensors import Stream, normal, uniform
from couette.training import DiffusionObjective, Trainer
from couette.training.plan import Plan
from couette.validation import parse
from worlds import schedule

STD = 0.3


class Exact(nn.Module):
    """The exact output for pictures whose pixels are independent, each N(0, STD²)."""

    wants: frozenset[str] = frozenset()

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.schedule = schedule(str(config.schedule))
        self.scalings = PARAMETERIZATIONS.bind(config.parameterization)
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        level = self.schedule.level(told.double())
        scalings = self.scalings(level)
        power = (level.alpha * STD).square() + level.sigma.square()
        gain = (level.alpha * STD**2 / power - scalings.skip) / scalings.out / scalings.inp
        return gain.float()[:, None, None, None] * x + self.nothing


class Seeing(nn.Module):
    """Says a fixed multiple of x, and keeps what it was told."""

    def __init__(self, wants: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.wants, self.seen = wants, list[Cond]()
        self.given = list[Tensor]()

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        self.seen.append(cond)
        self.given.append(x)
        return self.weight * x


def objective(network: nn.Module | None = None, **fields: Any) -> DiffusionObjective:
    given = {"schedule": "cosine", "parameterization": "x0", "times": "uniform", **fields}
    config = parse(DiffusionConfig, {"told": "time:scale=1", "drop": 0, **given}, "a test")
    network = network or Exact(config)
    return DiffusionObjective(build_denoiser(config, cast(Any, network)), config, {}, 1).train()


def batch(count: int, *shape: int, epoch: int = 0, first: int = 0) -> Batch:
    places = torch.arange(first, first + count)
    data = STD * torch.randn(count, *(shape or (2, 1, 1)), generator=torch.manual_seed(first))
    return Batch(data, {}, torch.stack((places, torch.full_like(places, epoch)), 1), places)


def part(whole: Batch, rows: slice) -> Batch:
    places = None if whole.places is None else whole.places[rows]
    return Batch(whole.data[rows], {}, whole.keys[rows], places)


GO_TOGETHER = [
    (how, weighting)
    for how in PARAMETERIZATIONS
    for weighting in WEIGHTINGS
    if not (weighting == "uniform" and PARAMETERIZATIONS.trait(how, "unbounded"))
]


def test_an_error_without_bound_is_not_weighed_alike() -> None:
    """The score's target is −eps/sigma: at sigma = 0 nothing else would count."""
    with pytest.raises(ConfigError, match=r"grows without bound.*weighting snr"):
        objective(weighting="uniform", parameterization="score")
    assert [how for how in PARAMETERIZATIONS if PARAMETERIZATIONS.trait(how, "unbounded")] == [
        "score"
    ]


def least(level: Level, how: str, weighting: str) -> float:
    """The least loss there is at a level."""
    scalings = PARAMETERIZATIONS[how](level)
    power = (level.alpha * STD).square() + level.sigma.square()
    error = (STD * level.sigma).square() / power / scalings.out.square()
    return float(WEIGHTINGS[weighting](level, scalings) * error)


class TestMinimum:
    """Points of N(0, s²): E|x0 − x̂0|² = s²σ²/(α²s² + σ²), so the loss is w/out² of that."""

    @pytest.mark.parametrize(("how", "weighting"), GO_TOGETHER)
    def test_the_exact_denoisers_loss_is_the_known_one(self, weighting: str, how: str) -> None:
        count, whole = 4000, batch(4000)
        found = objective(weighting=weighting, parameterization=how)
        for time in (0.1, 0.5, 0.9):
            t = torch.full((count,), time, dtype=torch.float64)
            level = Level(*(each[0] for each in found.denoiser.corruption.schedule.level(t)))
            with torch.no_grad():
                loss = found.at(whole, t).loss.double().mean()
            expected = least(level, how, weighting)
            # A mean of 8000 squares of normals is off by 5 times √(2/8000) in 1 of 10⁶.
            assert float(loss) == pytest.approx(expected, rel=5 * math.sqrt(2 / (2 * count)))

    @pytest.mark.parametrize("on", list(SCHEDULES))
    @pytest.mark.parametrize("how", list(PARAMETERIZATIONS))
    def test_it_is_the_known_one_to_a_thousandth(
        self, how: str, on: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without chance: a mean of what is quadratic in x0 and eps, over their normal laws, is the
        mean over the four pairs of x0 = ±s and eps = ±1. For every weighting on every schedule."""
        x0, eps = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1]]).float().reshape(2, 4, 1, 1, 1)
        monkeypatch.setattr("couette.training.diffusion.normal", lambda *_: eps)
        whole = batch(4, 1, 1, 1)._replace(data=STD * x0)
        given = Spec(name=on, **SCHEDULES.trait(on, "example", {}))
        own = schedule(on)
        if how in ("eps", "score") and entries(own) and own.level(torch.ones(())).alpha == 0:
            return  # refused: see the end of this file
        for weighting in [each for target_of, each in GO_TOGETHER if target_of == how]:
            found = objective(schedule=given, weighting=weighting, parameterization=how)
            for noise in (0.05, 0.5, 5.0):
                t = own.time(torch.full((4,), -2 * math.log(noise), dtype=torch.float64))
                with torch.no_grad():
                    loss = float(found.at(whole, t).loss.mean())
                expected = least(own.level(t[0]), how, weighting)
                assert loss == pytest.approx(expected, rel=1e-3), (weighting, noise)

    def test_learned_uncertainty_takes_its_loss_to_1_plus_the_log(self) -> None:
        found = objective(weighting="uncertainty")
        t = torch.full((4000,), 0.5, dtype=torch.float64)
        with torch.no_grad():
            error = found.at(batch(4000), t).logs["error"].mean()
            assert found.uncertainty is not None
            found.uncertainty.bias.copy_(error.log())
            losses = found.at(batch(4000), t)
        assert float(losses.loss.mean()) == pytest.approx(1 + math.log(float(error)), abs=1e-5)
        # What is told does not become negative as models get better.
        torch.testing.assert_close(losses.logs["loss"], losses.logs["error"])


def test_with_all_options_off_the_loss_is_the_plain_one_to_the_bit() -> None:
    """Written out: weight(t) times the mean squared error of F."""
    config = parse(DiffusionConfig, {"told": "time:scale=1", "weighting": "min-snr"}, "a test")
    network = Seeing()
    found = DiffusionObjective(build_denoiser(config, cast(Any, network)), config, {}, 1).train()
    whole = batch(64, 3, 4, 4)
    u = uniform(1, whole.keys, Stream.TIME).double() + 2.0**-25
    own = found.denoiser.corruption.schedule
    t = own.time(-2 * (-1.2 + 1.2 * torch.special.ndtri(u)))
    level = own.level(t)
    scalings = PARAMETERIZATIONS["edm"](level)
    eps = normal(1, whole.keys, Stream.NOISE, (3, 4, 4))
    wide = [each.float()[:, None, None, None] for each in (*level, scalings.inp)]
    x = wide[0] * whole.data + wide[1] * eps
    difference = 0.5 * (wide[2] * x) - target(scalings, level, whole.data, eps)
    error = difference.square().flatten(1).mean(1)
    weight = WEIGHTINGS["min-snr"](level, scalings).float()
    assert torch.equal(found(whole).loss, weight * error)


class TestOffset:
    def test_is_one_value_a_channel_of_the_asked_strength(self) -> None:
        """All noise, pictures of zeros: what the network sees is the noise itself."""
        network, whole = Seeing(), batch(500, 3, 4, 4)
        whole = whole._replace(data=torch.zeros(500, 3, 4, 4))
        t = torch.ones(500, dtype=torch.float64)
        objective(network, schedule="flow", offset=0.4).at(whole, t)
        objective(network, schedule="flow").at(whole, t)
        offset = network.given[0] - network.given[1]
        assert float(offset.flatten(2).std(2).max()) < 1e-6
        assert float(offset[..., 0, 0].std()) == pytest.approx(0.4, rel=0.05)
        correlation = torch.corrcoef(offset[..., 0, 0].T)
        assert float((correlation - torch.eye(3)).abs().max()) < 0.2

    def test_is_training_only(self) -> None:
        whole, t = batch(8, 3, 4, 4), torch.full((8,), 0.5, dtype=torch.float64)
        plain, offset = objective(Seeing()), objective(Seeing(), offset=0.4)
        assert torch.equal(plain.eval().at(whole, t).loss, offset.eval().at(whole, t).loss)
        assert not torch.equal(plain.train().at(whole, t).loss, offset.train().at(whole, t).loss)


class TestStrata:
    @pytest.mark.parametrize("strata", [4, 16])
    def test_consecutive_samples_cover_them(self, strata: int) -> None:
        """Whatever the batches: any `strata` samples in a row have one time in each stratum."""
        found = objective(schedule="flow", strata=strata)
        whole = batch(64, first=3)
        times = found._quantiles(whole)
        for first in range(64 - strata):
            rows = (times[first : first + strata] * strata).floor().long()
            assert sorted(rows.tolist()) == list(range(strata))
        for rows in (slice(0, 5), slice(5, 6), slice(6, 64)):
            assert torch.equal(found._quantiles(part(whole, rows)), times[rows])

    def test_their_mean_is_nearer_the_true_one(self) -> None:
        plain, strewn = objective(schedule="flow"), objective(schedule="flow", strata=64)
        means = [
            torch.stack([found._quantiles(batch(64, first=64 * i)).mean() for i in range(50)])
            for found in (plain, strewn)
        ]
        assert float(means[1].std()) < float(means[0].std()) / 20
        assert float(means[1].mean()) == pytest.approx(0.5, abs=1e-3)

    def test_need_places(self) -> None:
        with pytest.raises(ConfigError, match="where in the run it is"):
            objective(strata=4)(batch(8)._replace(places=None))


class TestSelfConditioning:
    def test_half_of_the_samples_are_told_the_first_prediction(self) -> None:
        network = Seeing(frozenset({"x0"}))
        whole = batch(2000, 2, 3, 3)
        objective(network, self_conditioning=True)(whole)
        (first, second), (x, again) = network.seen, network.given
        assert "x0" not in first and torch.equal(x, again)
        told = second["x0"].flatten(1).any(1)
        assert float(told.float().mean()) == pytest.approx(0.5, abs=0.05)
        assert torch.equal(second["x0"][told], 0.5 * x[told])
        assert not second["x0"].requires_grad

    def test_the_same_ones_in_any_batch(self) -> None:
        found, whole = objective(Seeing(frozenset({"x0"})), self_conditioning=True), batch(9)
        assert torch.equal(found(part(whole, slice(4, 9))).loss, found(whole).loss[4:])

    def test_training_only(self) -> None:
        network = Seeing(frozenset({"x0"}))
        objective(network, self_conditioning=True).eval()(batch(4))
        assert network.seen == [{}]


class TwoHalves(nn.Module):
    """Says `mean` for x0 and `between` for the variance, everywhere."""

    wants: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.1))
        self.between = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        return torch.cat((self.mean.expand_as(x), self.between.expand_as(x)), 1)


class TestLearnedVariance:
    def test_the_bound_teaches_the_variance_and_leaves_the_mean_alone(self) -> None:
        whole, gradients = batch(32, 1, 4, 4), []
        for weight in (1e-3, 1.0):
            network = TwoHalves()
            objective(network, variance="learned", vlb=weight)(whole).loss.mean().backward()
            gradients.append(network)
        small, large = gradients
        assert torch.equal(cast(Tensor, small.mean.grad), cast(Tensor, large.mean.grad))
        assert float(cast(Tensor, large.between.grad)) == pytest.approx(
            1000 * float(cast(Tensor, small.between.grad)), rel=1e-4
        )

    def test_it_is_the_bound_over_the_whole_table(self) -> None:
        """λ·T times the term at the time drawn, in the paper's units."""
        whole, t = batch(6, 1, 4, 4), torch.tensor([1, 2, 9, 50, 80, 100]).double() / 100
        found = objective(TwoHalves(), schedule="cosine:steps=100", variance="learned")
        with torch.no_grad():
            losses = found.at(whole, t)
            p = Prediction(torch.full_like(whole.data, 0.1), mix=torch.full_like(whole.data, 0.6))
            term = bound_term(found.denoiser.corruption.schedule, whole.data, t, p)
        torch.testing.assert_close(losses.loss - losses.logs["error"], 0.1 * term)

    def test_the_simple_loss_is_untouched(self) -> None:
        whole = batch(32, 1, 4, 4)
        learned = objective(TwoHalves(), variance="learned", vlb=1e-30)(whole)
        plain = objective(TwoHalves(), variance="learned", vlb=1e-3)(whole)
        assert torch.equal(learned.loss, learned.logs["error"])
        assert bool((plain.loss > learned.loss).all())


class TestImportance:
    def test_begins_as_the_plain_objective(self) -> None:
        whole = batch(64)
        plain, found = objective(schedule="flow"), objective(schedule="flow", importance=8)
        torch.testing.assert_close(found(whole).loss, plain(whole).loss, rtol=1e-5, atol=1e-7)

    def trained(self, bins: int = 8) -> DiffusionObjective:
        """A network whose loss depends much on t, met often enough to be known."""
        found = objective(Seeing(), schedule="flow", parameterization="eps", importance=bins)
        for step in range(20):
            found(batch(64, first=64 * step))
            found.updated(step)
        return found

    def test_times_are_drawn_as_often_as_their_losses_are_large(self) -> None:
        found = self.trained()
        assert found.importance is not None
        share = found.importance.edges.diff()
        size = found.importance.losses.square().mean(1).sqrt()
        torch.testing.assert_close(share, 0.999 * size / size.sum() + 0.001 / 8)
        assert float(share.max() / share.min()) > 2

    def test_the_mean_stays_the_same_and_varies_less(self) -> None:
        found, plain = self.trained(), objective(Seeing(), schedule="flow", parameterization="eps")
        whole = batch(40_000, epoch=1)
        with torch.no_grad():
            uneven, even = found.eval()(whole).loss, plain.eval()(whole).loss
        error = float((uneven.var() / 40_000 + even.var() / 40_000).sqrt())
        assert float(uneven.mean()) == pytest.approx(float(even.mean()), abs=4 * error)
        assert float(uneven.var()) < 0.9 * float(even.var())

    def test_the_batch_may_come_in_parts(self) -> None:
        whole, parts = self.trained(), self.trained()
        later = batch(64, first=5000)
        whole(later)
        for rows in (slice(0, 7), slice(7, 40), slice(40, 64)):
            parts(part(later, rows))
        for each in (whole, parts):
            each.updated(99)
        assert whole.importance is not None and parts.importance is not None
        for name, value in whole.importance.state_dict().items():
            assert torch.equal(parts.importance.state_dict()[name], value), name

    def test_held_out_losses_are_not_remembered(self) -> None:
        found = self.trained()
        assert found.importance is not None
        before = found.importance.seen.clone()
        found.eval()(batch(64))
        assert torch.equal(found.importance.seen, before)


class TestPairings:
    @pytest.mark.parametrize("name", list(PAIRINGS))
    def test_gives_every_noise_to_one_picture(self, name: str) -> None:
        noise, data = torch.randn(9, 2, 3, 3), torch.randn(9, 2, 3, 3)
        paired = PAIRINGS[name](noise, data)
        assert torch.equal(paired.flatten(1).sort(0).values, noise.flatten(1).sort(0).values)

    @pytest.mark.parametrize(("name", "power"), [("immiscible", 1), ("ot", 2)])
    def test_is_the_best_of_all_orders(self, name: str, power: int) -> None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            noise, data = (torch.randn(5, 1, 1, 2, generator=generator) for _ in range(2))

            def cost(paired: Tensor, data: Tensor = data) -> float:
                apart = (paired - data).flatten(1).double().norm(dim=1)
                return float(apart.pow(power).sum())

            best = min(cost(noise[list(order)]) for order in permutations(range(5)))
            assert cost(PAIRINGS[name](noise, data)) == pytest.approx(best, rel=1e-6)

    def test_couple_the_batch_and_refuse_to_split_it(self) -> None:
        config = TrainingConfig(batch=8, accumulate=2)
        for name in PAIRINGS:
            found = objective(Seeing(), pairing=name)
            assert found.couples == (name != "none")
            if found.couples:
                with pytest.raises(ConfigError, match="set accumulate 1"):
                    Trainer(found, lambda step: batch(8), config, Plan(config, 8))

    def test_straightens_the_paths_in_training_only(self) -> None:
        """Flow matching's target is shorter: noise and picture are nearer."""
        whole = batch(64)
        plain, paired = (
            objective(Seeing(), schedule="flow", parameterization="flow", pairing=name)
            for name in ("none", "ot")
        )
        for each in (plain, paired):
            nn.init.zeros_(cast(nn.Parameter, each.network.weight))
        assert bool(paired(whole).loss.mean() < 0.9 * plain(whole).loss.mean())
        assert torch.equal(paired.eval()(whole).loss, plain.eval()(whole).loss)


def test_uncertainty_leaves_importance_nothing_to_go_by() -> None:
    with pytest.raises(ConfigError, match="nothing to go by"):
        objective(Seeing(), weighting="uncertainty", importance=8)


@pytest.mark.parametrize("how", list(PARAMETERIZATIONS))
def test_a_table_that_ends_in_pure_noise_teaches_neither_eps_nor_score(how: str) -> None:
    fields = {"schedule": "zero-terminal", "parameterization": how}
    if how in ("eps", "score"):
        with pytest.raises(ConfigError, match=r"predict one of edm, flow, v, x0\."):
            objective(Seeing(), **fields)
    else:
        end = torch.ones(4, dtype=torch.float64)
        assert bool(objective(Seeing(), **fields).at(batch(4), end).loss.isfinite().all())
