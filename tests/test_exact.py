"""The exact worlds, held against Bayes' rule by numbers: grids, Monte Carlo, autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from couette.config import spec
from couette.contracts import Ask, Denoise
from couette.errors import CouetteError, InputError, ShapeError
from couette.exact import Empirical, Known, Mixture, fitted, named, with_schedule
from couette.generate import pictures, sampling_of
from couette.model import Model, exact_model
from couette.registry import SCHEDULES
from mixtures import album, at, plane, small
from worlds import DOWN, draw, run, schedule

TIMES = (0.05, 0.3, 0.7, 0.95)
ANY = torch.tensor([2])


@pytest.fixture(scope="module")
def digits() -> Model:
    return exact_model(named("exact:digits:resolution=8,limit=200"))


WORLDS: list[Callable[[str], Known]] = [plane, small, album]


def around(world: Known, t: float, count: int = 6) -> Tensor:
    """Places x_t where there is some density, and some where there is little."""
    level = world.corruption.schedule.level(at(t))
    return (level.alpha + level.sigma) * draw(count, *world.shape, seed=5)


def by_hand(world: Mixture, x: Tensor, t: float, label: int | None = None) -> Tensor:
    """log p(x_t), from torch's own distributions, component by component."""
    level = world.corruption.schedule.level(at(t))
    assert world.labels is not None
    total = []
    for k, weight in enumerate(world.log_weights[-1].exp()):
        if label is not None and int(world.labels[k]) != label:
            continue
        noised = LowRankMultivariateNormal(
            level.alpha * world.means[k],
            level.alpha * world.factors[k].mT,
            (level.alpha.square() * world.variance[k] + level.sigma.square()),
        )
        total.append(weight.log() + noised.log_prob(x.flatten(1)))
    share = 1.0 if label is None else float(world.prior[label])
    return torch.stack(total).logsumexp(0) - math.log(share)


@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("make", [plane, small])
def test_the_density_of_a_mixture(make: Callable[[str], Mixture], label: int, on: str) -> None:
    world = make(on)
    cond = {} if label is None else {"label": torch.tensor([label]).expand(6)}
    for t in TIMES:
        x = around(world, t)
        expected = by_hand(world, x, t, label)
        torch.testing.assert_close(world.log_density(x, at(t), cond), expected)


def test_the_density_is_one_in_all() -> None:
    world, t = plane(), at(0.4)
    line = torch.linspace(-4, 4, 201, dtype=torch.float64)
    x = torch.cartesian_prod(line, line).reshape(-1, 2, 1, 1)
    mass = world.log_density(x, t).exp().sum() * (line[1] - line[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("on", ["flow", "edm", "linear"])
def test_the_mean_is_bayes_rule_on_a_grid(on: str, label: int) -> None:
    """E[x0 | x_t] = ∫ x0·p(x0)·N(x_t; α·x0, σ²) / ∫ p(x0)·N(x_t; α·x0, σ²) in the plane."""
    world, t = plane(on), at(0.5)
    line = torch.linspace(-3, 3, 301, dtype=torch.float64)
    x0 = torch.cartesian_prod(line, line)
    cond = {"label": torch.full((len(x0),), label)}
    prior = world.log_density(x0.reshape(-1, 2, 1, 1), at(0), cond)
    level = world.corruption.schedule.level(t)
    x = around(world, 0.5)
    away = x.reshape(-1, 1, 2) - level.alpha * x0
    posterior = (prior - away.square().sum(-1) / (2 * level.sigma.square())).softmax(-1)
    found = world(x, t, {"label": torch.full((len(x),), label)}).x0
    torch.testing.assert_close(found.reshape(-1, 2), posterior @ x0, rtol=0, atol=1e-6)


def test_the_mean_is_monte_carlos_too() -> None:
    """Pictures drawn, then weighed by how likely each makes x_t."""
    world, t = small(), at(0.7)
    x0 = world.sample(200_000).x0
    level = world.corruption.schedule.level(t)
    x = level.alpha * x0[:3] + level.sigma * draw(3, 1, 3, 3, seed=9)
    away = torch.cdist(x.flatten(1), level.alpha * x0.flatten(1))
    weight = (-away.square() / (2 * level.sigma.square())).softmax(1)
    spread = (weight @ x0.flatten(1).square()) - (weight @ x0.flatten(1)).square()
    error = (spread * weight.square().sum(1, keepdim=True)).sqrt()
    found = world(x, t, {}).x0.flatten(1)
    assert float(((found - weight @ x0.flatten(1)) / error).abs().max()) < 4.5


@pytest.mark.parametrize("make", WORLDS)
@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_score_is_the_gradient(make: Callable[[str], Known], on: str, label: int) -> None:
    """And E[x0 | x_t] = (x_t + σ²·score)/α: Tweedie's formula."""
    world = make(on)
    for t in TIMES:
        x = around(world, t).requires_grad_()
        cond = {"label": torch.full((len(x),), label)}
        (gradient,) = torch.autograd.grad(world.log_density(x, at(t), cond).sum(), x)
        score = world.score(x, at(t), cond)
        torch.testing.assert_close(score, gradient, rtol=1e-6, atol=1e-9)
        level = world.corruption.schedule.level(at(t))
        tweedie = (x + level.sigma.square() * score) / level.alpha
        torch.testing.assert_close(world(x, at(t), cond).x0, tweedie, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("make", WORLDS)
def test_without_picture_the_mean_of_the_data(make: Callable[[str], Known]) -> None:
    world = make("flow")
    x, one = draw(2, *world.shape), torch.ones(2, dtype=torch.int64)
    whole, ones = world(x, at(1), {}).x0, world(x, at(1), {"label": one}).x0
    if isinstance(world, Mixture):
        expected = [world.moments()[0], world.moments(1)[0]]
    else:
        album = world.get_buffer("pictures")
        expected = [album.mean(0), album[[1, 2, 4]].mean(0)]
    for found, mean in zip((whole, ones), expected, strict=True):
        torch.testing.assert_close(found.flatten(1), mean.expand(2, -1))


@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("far", [1e-3, 1.0, 1e3])
def test_without_noise_the_nearest_picture(on: str, far: float) -> None:
    world = album(on)
    pictures = world.get_buffer("pictures")
    x = far * draw(20, 1, 3, 3, seed=3)
    near = torch.cdist(x.flatten(1), pictures)
    assert torch.equal(world(x, at(0), {}).x0.flatten(1), pictures[near.argmin(1)])
    asked = torch.ones(20, dtype=torch.int64)
    near[:, [0, 3, 5, 6]] = math.inf
    found = world(x, at(0), {"label": asked}).x0.flatten(1)
    assert torch.equal(found, pictures[near.argmin(1)])


@pytest.mark.parametrize("std", [0.0, 0.2])
def test_without_noise_a_mixture_leaves_what_it_could_have_made(std: float) -> None:
    """With a spread of its own any x is possible; with none, x falls onto the factors' plane."""
    factors = torch.zeros(2, 1, 1, 2, 2)
    factors[:, 0, 0, 0, 0] = 2
    world = Mixture(schedule("edm"), 3 * draw(2, 1, 2, 2).float(), std, factors=factors)
    x = draw(9, 1, 2, 2, seed=2)
    found = world(x, at(0), {}).x0
    if std:
        expected = x
    else:
        means = world.get_buffer("means")
        rest = torch.cdist(x.flatten(1)[:, 1:], means[:, 1:]).argmin(1)
        expected = means[rest].reshape(x.shape).clone()
        expected[:, 0, 0, 0] = x[:, 0, 0, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("make", WORLDS)
def test_any_class_is_the_classes_weighed_by_their_posterior(make: Callable[[str], Known]) -> None:
    world = make("linear")
    for t in TIMES:
        x = around(world, t)
        each = [world(x, at(t), {"label": torch.full((6,), k)}).x0 for k in range(2)]
        shares = world.classify(x, at(t))
        assert torch.allclose(shares.sum(1), torch.ones(6, dtype=torch.float64))
        mean = sum(
            share.reshape(-1, 1, 1, 1) * x0 for share, x0 in zip(shares.T, each, strict=True)
        )
        for cond in ({}, {"label": ANY.expand(6)}):
            torch.testing.assert_close(world(x, at(t), cond).x0, mean)


def test_classes_may_differ_from_row_to_row_and_so_may_times() -> None:
    for make in WORLDS:
        world = make("cosine")
        times, labels = torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([1, 2, 0])
        x = around(world, 0.5, 3)
        together = world(x, times, {"label": labels}).x0
        for i in range(3):
            alone = world(x[i : i + 1], times[i], {"label": labels[i : i + 1]}).x0
            torch.testing.assert_close(together[i : i + 1], alone)


def test_one_picture_is_the_answer_always() -> None:
    picture = draw(1, 3, 2, 2)
    for on in SCHEDULES:
        world = Empirical(schedule(on), picture)
        for t in (0.0, 0.5, 1.0):
            assert torch.equal(world(around(world, 0.5), at(t), {}).x0, picture.expand(6, 3, 2, 2))


def test_a_set_is_a_mixture_without_spread() -> None:
    pictures, labels = draw(7, 1, 3, 3), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    mixture = Mixture(schedule("cosine"), pictures, 0.0, labels=labels)
    for t in TIMES:
        x, cond = around(mixture, t), {"label": torch.tensor([0, 1, 2, 0, 1, 2])}
        one, other = album("cosine"), mixture
        torch.testing.assert_close(one(x, at(t), cond).x0, other(x, at(t), cond).x0)
        torch.testing.assert_close(
            one.log_density(x, at(t), cond), other.log_density(x, at(t), cond)
        )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, x = album("edm"), draw(4, 1, 3, 3)
    cond = {"label": torch.tensor([0, 1, 2, 1])}
    whole = world(x, at(0.3), cond).x0, world.log_density(x, at(0.3), cond)
    monkeypatch.setattr("couette.exact.empirical._CHUNK", 20)  # two pictures at once
    torch.testing.assert_close(world(x, at(0.3), cond).x0, whole[0])
    torch.testing.assert_close(world.log_density(x, at(0.3), cond), whole[1])


@pytest.mark.parametrize("label", [None, 0, 1])
def test_samples_have_the_moments(label: int | None) -> None:
    world, count = small(), 200_000
    drawn = world.sample(count, seed=3, label=label)
    mean, covariance = world.moments(label)
    flat = drawn.x0.flatten(1)
    scale = covariance.diagonal().sqrt()
    assert float(((flat.mean(0) - mean) / scale).abs().max()) < 4.5 / count**0.5
    off = (torch.cov(flat.T) - covariance) / (scale[:, None] * scale)
    assert float(off.abs().max()) < 10 / count**0.5
    kept = torch.bincount(drawn.component, minlength=4) / count
    torch.testing.assert_close(
        kept, world.log_weights[-1 if label is None else label].exp().float(), rtol=0, atol=5e-3
    )
    assert torch.equal(world.sample(5, seed=3, label=label).x0, drawn.x0[:5])


def test_a_fit_keeps_the_mean_the_widest_directions_and_all_the_variance() -> None:
    labels = torch.arange(300) % 2
    pictures = draw(300, 1, 2, 3) * torch.tensor([3.0, 2, 1, 0.5, 0.4, 0.3]).reshape(1, 1, 2, 3)
    world = fitted(schedule("flow"), pictures, labels, rank=2)
    for label in range(2):
        own = pictures[labels == label].flatten(1)
        mean, covariance = world.moments(label)
        torch.testing.assert_close(mean, own.mean(0))
        theirs = torch.cov(own.T, correction=0)
        torch.testing.assert_close(covariance.trace(), theirs.trace())
        values = torch.linalg.eigvalsh(covariance).flip(0), torch.linalg.eigvalsh(theirs).flip(0)
        torch.testing.assert_close(values[0][:2], values[1][:2])
        torch.testing.assert_close(values[0][2:], values[1][2:].mean().expand(4))


@pytest.mark.parametrize("name", DOWN)
def test_every_sampler_ends_in_the_data_and_in_the_class_asked(name: str, digits: Model) -> None:
    """As the command line makes them: pictures of the set, each of the class asked for."""
    sampling = sampling_of(digits, sampler=spec(name), steps=30)
    asked = [Ask(label=i % 10) for i in range(20)]
    drawn = torch.cat(list(pictures(digits, asked, sampling=sampling))).double()
    album = digits.network.get_buffer("world.pictures").double()
    labels = digits.network.get_buffer("world.labels")
    near = torch.cdist(drawn.flatten(1), album)
    assert float(near.min(1).values.max()) < 0.3
    assert torch.equal(labels[near.argmin(1)], torch.arange(20) % 10)


@pytest.mark.parametrize("name", DOWN)
def test_every_sampler_ends_in_the_mixture(name: str) -> None:
    """Mean, covariance and the share of each class, of 2,000 points in the plane."""
    world, count, steps = plane("linear"), 2000, 60
    draws = iter(range(10_000))
    x = draw(count, 2, 1, 1, seed=77)
    times = world.corruption.schedule.time(torch.linspace(-9.9, 9, steps, dtype=torch.float64))
    times = torch.cat((times, torch.zeros(1, dtype=torch.float64)))
    out = run(name, world, x, times, lambda t, u: draw(*x.shape, seed=next(draws)))[-1].x
    mean, covariance = world.moments()
    flat = out.flatten(1)
    assert float((flat.mean(0) - mean).abs().max()) < 0.06
    assert float((torch.cov(flat.T) - covariance).abs().max()) < 0.06
    share = world.classify(out, at(0.01)).mean(0)
    torch.testing.assert_close(share, world.prior, rtol=0, atol=0.05)


def test_worlds_are_denoisers() -> None:
    for make in WORLDS:
        assert isinstance(make("flow"), Denoise)
    assert plane().float().means.dtype == torch.float32  # a module like any other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_have_the_dtype_of_x(dtype: torch.dtype) -> None:
    world = small("edm")
    x = draw(2, 1, 3, 3)
    found = world(x.to(dtype), at(0.4), {}).x0
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), world(x, at(0.4), {}).x0, rtol=0, atol=1e-6)


def test_what_is_refused() -> None:
    on = schedule("flow")
    with pytest.raises(ShapeError, match=r"made of \(1, 3, 3\)"):
        small()(draw(2, 1, 4, 4), at(0.5), {})
    with pytest.raises(CouetteError, match="can't be told 'lable'; did you mean 'label'"):
        small()(draw(2, 1, 3, 3), at(0.5), {"lable": torch.zeros(2)})
    with pytest.raises(ShapeError, match="at least one"):
        Empirical(on, torch.zeros(0, 1, 2, 2))
    with pytest.raises(InputError, match="Class 1 of this world is empty"):
        Empirical(on, draw(2, 1, 2, 2), labels=torch.tensor([0, 2]))
    with pytest.raises(InputError, match="that many labels"):
        Empirical(on, draw(2, 1, 2, 2), labels=torch.tensor([0]))
    with pytest.raises(InputError, match="no classes"):
        Empirical(on, draw(2, 1, 2, 2)).classify(draw(2, 1, 2, 2), at(0.5))
    with pytest.raises(InputError, match="as many weights above 0"):
        Mixture(on, draw(2, 1, 2, 2), 0.1, weights=torch.tensor([1.0, 0.0]))
    with pytest.raises(ShapeError, match=r"factors \(K, R, C, H, W\)"):
        Mixture(on, draw(2, 1, 2, 2), 0.1, factors=draw(2, 3, 1, 2, 3))
    with pytest.raises(InputError, match="at most 4"):
        fitted(on, draw(12, 1, 4, 4), torch.arange(12) % 2, rank=6)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("exact:", "Say which world"),
        ("exact:digist", "did you mean 'digits'"),
        ("exact:digits:resolutoin=8", "did you mean 'resolution'"),
        ("exact:mixture:rnk=3", "did you mean 'rank'"),
        ("exact:digits:schedule=flwo", "did you mean 'flow'"),
        ("exact:digits:limit=20,holdout=0", "no training picture of the class"),
    ],
)
def test_a_world_that_is_none_is_said(given: str, told: str) -> None:
    with pytest.raises(CouetteError, match=told):
        exact_model(named(given))


def test_words_for_worlds() -> None:
    assert with_schedule("exact:digits", "flow") == "exact:digits:schedule=flow"
    longer = with_schedule("exact:digits:limit=300", "linear:steps=50")
    world = named(longer)
    assert (world.schedule, world.data.limit) == (spec("linear", steps="50"), 300)
    assert named(with_schedule(longer, "edm")).schedule == spec("edm")
    several = with_schedule("exact:digits:limit=300", "linear:steps=50,beta_max=0.03")
    assert named(several).schedule == spec("linear", steps="50", beta_max="0.03")
    assert named(several).data.limit == 300
    with pytest.raises(InputError, match="only exact worlds"):
        with_schedule("runs/digits", "flow")


def test_the_gaussians_world_is_the_density_of_its_data() -> None:
    """Mean log-likelihood of the drawn points = minus the entropy, up to its standard error."""
    known, data = named("exact:gaussians").open()
    x = data.values.double()
    found = known.log_density(x, at(0))
    entropy = math.log(25) + math.log(2 * math.pi * math.e * 0.05**2)
    assert abs(float(found.mean()) + entropy) < 4 * float(found.std()) / len(x) ** 0.5
    assert data.labels is not None
    assert torch.equal(known.classify(x[:500], at(0)).argmax(1), data.labels[:500])
