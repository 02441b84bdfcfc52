"""What holds for every method of guidance, on a world whose exact answers are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.config import Spec, spec
from couette.contracts import Cond, Denoise, Prediction
from couette.errors import InputError, UnknownName
from couette.guidance import GUIDANCE, ClassifierFree, Guided, Parted, Terms, guide
from couette.registry import SAMPLERS
from guidance.labelled_mixture import LABEL, NONE, POINTS, SCHEDULES, Mixture, at, mixture, terms
from worlds import DOWN, draw

NEEDED: dict[str, dict[str, Any]] = {"auto": {"run": "a"}, "classifier": {"run": "a"}}
"""Settings that a method can't do without."""
PLAIN: dict[str, dict[str, Any]] = {
    "interval": {"low": 0.0, "high": 1e9},
    "rescale": {"phi": 0.0},
    "apg": {"momentum": 0.0, "eta": 1.0},
}
"""Settings at which a rule is classifier-free guidance."""
SCALES = [-0.5, 0.0, 0.4, 1.5, 7.0]


def part(name: str, **settings: Any) -> Spec:
    return spec(name, **{**NEEDED.get(name, {}), **settings})


class Blinded:
    """The mixture; in rows that are perturbed, as if nothing were asked."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.corruption = mixture, mixture.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        label = cond["label"]
        if "perturb" in cond:
            label = torch.where(cond["perturb"], 2, label)
        return self.mixture(x, t, {"label": label})


@pytest.mark.parametrize("name", [n for n in GUIDANCE if GUIDANCE.trait(n, "off", 1) == 1])
def test_scale_one_is_off(name: str) -> None:
    """The denoiser itself comes back: no second pass, and nothing in between."""
    world = mixture()
    assert guide(world, terms(1, world), [part(name)]) is world


@pytest.mark.parametrize("name", list(GUIDANCE))
def test_keeps_the_corruption(name: str) -> None:
    world = mixture()
    assert guide(world, terms(0.5, world), [part(name)]).corruption is world.corruption


def straightened(world: Mixture, t: Tensor) -> Tensor:
    """What cfg-zero has at scale 0: the unconditional velocity, as long as lies nearest to the
    conditional one (Fan et al. 2025), as an x0."""
    alpha, sigma = world.corruption.schedule.level(t)
    z = POINTS / (alpha + sigma)
    told, untold = (z - world(POINTS, t, cond).x0 for cond in (LABEL, NONE))
    share = (told * untold).sum((1, 2, 3), keepdim=True) / untold.square().sum((1, 2, 3), True)
    return z - share * untold


ELSEWHERE: dict[str, Callable[[Mixture, Mixture, Tensor], Tensor]] = {
    "auto": lambda world, worse, t: worse(POINTS, t, LABEL).x0,
    "cfg-zero": lambda world, worse, t: straightened(world, t),
}
"""What scale 0 is for methods that do not start from the unconditional answer: of the model, of the
worse one, at a time, the worse answer that they move away from."""
AT_ZERO: dict[str, dict[str, Any]] = {**PLAIN, "cfg-zero": {"still": 0}}
"""Settings at which scale 0 is tried, where they are not the defaults."""


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize("name", list(GUIDANCE))
def test_scale_zero_is_the_unconditional_answer(name: str, text: str) -> None:
    """Of every method that does not say above what else it is, one registered tomorrow too.

    A classifier takes off what the label added, by Bayes' rule; perturbed rows answer here as if
    nothing were asked.
    """
    world, worse = mixture(text), mixture(text, shifted=0.3)
    t = at(1.0, world.corruption)
    own = Terms(0, NONE, lambda path: worse, lambda path: world.log_p)
    got = guide(Blinded(world), own, [part(name, **AT_ZERO.get(name, {}))])(POINTS, t, LABEL).x0
    other = ELSEWHERE.get(name)
    expected = other(world, worse, t) if other else world(POINTS, t, NONE).x0
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
    assert float((got - world(POINTS, t, LABEL).x0).abs().max()) > 0.1


def test_only_methods_that_exist_are_excused() -> None:
    assert {*ELSEWHERE, *AT_ZERO, *NEEDED} <= set(GUIDANCE)


@pytest.mark.parametrize("noise", [0.05, 0.7, 6.0])
@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list(PLAIN))
def test_a_rule_that_changes_nothing_is_plain_guidance(
    name: str, scale: float, text: str, noise: float
) -> None:
    world = mixture(text)
    t = at(noise, world.corruption)
    plain, ruled = (
        guide(world, terms(scale, world), [each])(POINTS, t, LABEL).x0
        for each in (part("cfg"), part(name, **PLAIN[name]))
    )
    torch.testing.assert_close(ruled, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in GUIDANCE if n not in ("auto", "classifier")])
def test_both_answers_come_from_one_batch_or_from_two(name: str) -> None:
    """Together: one call of twice the rows. Apart: two calls of B rows, and the same answer."""
    world = mixture()
    seen = Blinded(world)
    t = at(1.0, world.corruption)
    settings = {"still": 0} if name == "cfg-zero" else {}
    together = guide(seen, terms(0.5, world), [part(name, **settings)])(POINTS, t, LABEL)
    assert world.rows == [10]
    world.rows.clear()
    parted = Parted(seen, len(POINTS))
    apart = guide(parted, terms(0.5, world), [part(name, **settings)])(POINTS, t, LABEL)
    assert world.rows == [5, 5]
    torch.testing.assert_close(apart.x0, together.x0, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", list(GUIDANCE))
def test_gradients_flow_to_the_noisy_points(name: str) -> None:
    """Against finite differences; the classifier's own gradient is differentiated again."""
    world = mixture("linear")
    t = at(0.8, world.corruption)
    settings = {"still": 0, "momentum": 0.0, "norm": 0.3}
    known = GUIDANCE.settings(name).model_fields
    chosen = part(name, **{key: value for key, value in settings.items() if key in known})

    def answer(x: Tensor) -> Tensor:
        return guide(Blinded(world), terms(0.7, world), [chosen])(x, t, LABEL).x0

    assert torch.autograd.gradcheck(answer, POINTS.clone().requires_grad_())


@pytest.mark.parametrize("name", [n for n in GUIDANCE if n not in ("auto", "perturbed")])
@pytest.mark.parametrize("unconditional", [None, {}], ids=["never hidden", "no labels"])
def test_what_needs_an_unconditional_answer_says_so(name: str, unconditional: Cond | None) -> None:
    if name == "classifier":
        return
    with pytest.raises(InputError, match="trained with labels, some of them hidden"):
        guide(mixture(), Terms(0.5, unconditional), [part(name)])


def test_unknown_methods_and_settings_are_refused() -> None:
    world = mixture()
    with pytest.raises(UnknownName, match="did you mean 'apg'"):
        guide(world, terms(2, world), [spec("agp")])
    with pytest.raises(InputError, match="no setting 'phi'"):
        guide(world, terms(2, world), [spec("apg", phi=0.5)])


class TestComposition:
    def test_rules_are_laid_over_one_another_and_cost_no_pass(self) -> None:
        """Interval, then APG, then rescale: each on the contrast of the one before."""
        world = mixture()
        names = [spec("interval", low=0.5, high=2.0), spec("apg", norm=0.2), spec("rescale", phi=1)]
        guided = guide(world, terms(4, world), names)
        t = at(1.0, world.corruption)
        got = guided(POINTS, t, LABEL).x0
        assert world.rows == [10]
        good, bad = (world(POINTS, t, cond).x0 for cond in (LABEL, NONE))
        change = good - bad
        sizes = change.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        change = change * (0.2 / sizes).clamp(max=1)
        unit = good / good.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        across = change - (change * unit).sum((1, 2, 3), keepdim=True) * unit
        x0 = good + 3 * across
        ratio = good.flatten(1).std(1) / x0.flatten(1).std(1)
        torch.testing.assert_close(got, x0 * ratio.reshape(-1, 1, 1, 1), rtol=1e-10, atol=1e-10)

    def test_outside_the_interval_nothing_is_left_of_any_rule(self) -> None:
        world = mixture()
        names = [spec("apg"), spec("rescale"), spec("interval", low=0.5, high=2.0)]
        guided = guide(world, terms(4, world), names)
        for noise in (3.0, 0.1):
            t = at(noise, world.corruption)
            world.rows.clear()
            got = guided(POINTS, t, LABEL)
            assert world.rows == [5]
            assert torch.equal(got.x0, world(POINTS, t, LABEL).x0)

    def test_a_rule_takes_the_source_that_stands_before_it(self) -> None:
        """APG of autoguidance: away from the worse model's answer, not from the unconditional."""
        world, worse = mixture(), mixture(shifted=0.3)
        t = at(1.0, world.corruption)
        names = [part("auto"), spec("apg", momentum=0, eta=1)]
        got = guide(world, terms(3, world, worse), names)(POINTS, t, LABEL).x0
        good, bad = (each(POINTS, t, LABEL).x0 for each in (world, worse))
        torch.testing.assert_close(got, bad + 3 * (good - bad), rtol=1e-12, atol=1e-12)

    def test_sources_nest(self) -> None:
        """Perturbed over classifier-free: each of the two answers is itself guided."""
        world = mixture()
        t = at(1.0, world.corruption)
        guided = guide(Blinded(world), terms(2, world), [part("cfg"), part("perturbed")])
        good, bad = (world(POINTS, t, cond).x0 for cond in (LABEL, NONE))
        good = bad + 2 * (good - bad)
        torch.testing.assert_close(
            guided(POINTS, t, LABEL).x0, bad + 2 * (good - bad), rtol=1e-12, atol=1e-12
        )
        assert world.rows == [5, 5, 20]

    def test_cfg_plus_plus_keeps_its_base_under_a_rule(self) -> None:
        world = mixture()
        t = at(1.0, world.corruption)
        got = guide(world, terms(0.6, world), [spec("cfg++"), spec("rescale")])(POINTS, t, LABEL)
        assert got.base is not None and torch.equal(got.base, world(POINTS, t, NONE).x0)

    def test_any_denoiser_to_denoiser_may_stand_in_the_chain(self) -> None:
        """A bare wrapper is guided afresh by the rule that stands after it."""
        world = mixture()

        class Halved:
            corruption = world.corruption

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                return Prediction(world(x, t, cond).x0 / 2)

        t = at(1.0, world.corruption)
        got = guide(Halved(), terms(3, world), [spec("apg", momentum=0, eta=1)])(POINTS, t, LABEL)
        plain = guide(world, terms(3, world), [spec("cfg")])(POINTS, t, LABEL)
        torch.testing.assert_close(got.x0, plain.x0 / 2, rtol=1e-10, atol=1e-10)


def test_the_better_answers_learned_variance_is_kept() -> None:
    class Learned:
        corruption = mixture().corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(x, None, cond["label"].double().reshape(-1, 1, 1, 1).expand_as(x))

    guided = guide(Learned(), Terms(3, NONE), [spec("apg")])
    got = guided(POINTS, torch.tensor(0.5), LABEL).mix
    assert got is not None and torch.equal(got[:, 0, 0, 0], LABEL["label"].double())


ONE_A_STEP = [n for n in DOWN if SAMPLERS.trait(n, "order") == 1]


class TestPlusPlusInSamplers:
    """CFG++ guides the picture and leaves the noise unconditional: `Prediction.base`."""

    @pytest.mark.parametrize("name", DOWN)
    def test_at_zero_every_sampler_draws_the_unconditional(self, name: str) -> None:
        world = mixture("linear:steps=100")
        times = torch.linspace(0.9, 0.2, 6, dtype=torch.float64)

        def ends(denoise: Denoise, cond: Cond) -> Tensor:
            noises = iter(draw(40, 5, 2, 1, 1, seed=3))
            run = SAMPLERS[name](denoise, POINTS, times, cond, lambda t, u: next(noises))
            return list(run)[-1].x

        guided = guide(world, terms(0, world), [spec("cfg++")])
        torch.testing.assert_close(ends(guided, LABEL), ends(world, NONE), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("text", SCHEDULES)
    @pytest.mark.parametrize("name", ONE_A_STEP)
    def test_first_order_steps_are_the_papers(self, name: str, text: str) -> None:
        """x_u = alpha_u·x0_λ + sigma_u·eps_unconditional (Chung et al. 2024, alg. 2)."""
        world = mixture(text)
        times = torch.stack([at(noise, world.corruption) for noise in (4.0, 1.0, 0.3)])
        guided = guide(world, terms(0.6, world), [spec("cfg++")])
        steps = list(SAMPLERS[name](guided, POINTS, times, LABEL, None))
        x = POINTS
        for (t, u), step in zip(pairwise(times), steps, strict=True):
            a, b = (world.corruption.schedule.level(each) for each in (t, u))
            good, bad = (world(x, t, cond).x0 for cond in (LABEL, NONE))
            eps = (x - a.alpha * bad) / a.sigma
            x = b.alpha * (bad + 0.6 * (good - bad)) + b.sigma * eps
            torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_a_source_alone_and_a_rule_alone_are_guided_denoisers() -> None:
    world = mixture()
    for name in GUIDANCE:
        assert isinstance(guide(world, terms(0.5, world), [part(name)]), Guided), name
    assert isinstance(guide(world, terms(2, world), [spec("cfg")]), ClassifierFree)
