"""Samplers of states on a world whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Ask, Cond, Corruption, Prediction, Step
from couette.discrete import KINDS, bits
from couette.errors import ConfigError, InputError
from couette.generate import pictures, sampling_of, steps
from couette.guidance import Terms, guide
from couette.model import Model, assemble, build_network
from couette.registry import SAMPLERS, SCHEDULES
from discrete.joint import Joint, chi_square, f64, mixture, nats, uniforms

FALSE_ALARM = 1e-3
"""Of each chi-square test, were its draws not fixed."""

OWN = [name for name in SAMPLERS if SAMPLERS.trait(name, "states")]


def times(count: int) -> Tensor:
    return torch.linspace(1, 0, count + 1, dtype=torch.float64)


def walked(world: Joint, count: int, rows: int, sampler: str = "categorical") -> list[Step]:
    draws: Iterator[int] = iter(range(10_000))
    noise = lambda t, u: uniforms(rows, world.all, seed=next(draws))  # noqa: E731
    start = world.kind.start(noise(None, None))
    run = SAMPLERS.bind(Spec.model_validate(sampler))
    return list(run(world, start, times(count), {}, noise))


def counts(world: Joint, x: Tensor) -> Tensor:
    """How often each x_0 of the world came, (C,)."""
    same = (x[:, None] == world.all).flatten(2).all(2)
    assert bool(same.any(1).all())
    return same.double().sum(0)


@pytest.mark.parametrize("noise", list(KINDS))
class TestTheExactDenoiser:
    @pytest.mark.parametrize("count", [1, 3])
    def test_draws_one_position_exactly_in_any_number_of_steps(
        self, noise: str, count: int
    ) -> None:
        world = Joint(noise, states=4, positions=1)
        found = counts(world, walked(world, count, 20_000)[-1].x)
        assert chi_square(found, 20_000 * world.table) > FALSE_ALARM

    def test_draws_the_joint_distribution_in_many_steps(self, noise: str) -> None:
        world = Joint(noise)
        found = counts(world, walked(world, 100, 10_000)[-1].x)
        assert chi_square(found, 10_000 * world.table) > FALSE_ALARM

    def test_draws_positions_apart_in_one_step(self, noise: str) -> None:
        """Which the test can tell from the joint distribution."""
        world = Joint(noise)
        found = counts(world, walked(world, 1, 10_000)[-1].x)
        apart = torch.einsum("ckl,kl->cl", world.all[:, :, 0], world.marginals[:, 0]).prod(1)
        assert chi_square(found, 10_000 * apart) > FALSE_ALARM
        assert chi_square(found, 10_000 * world.table) < 1e-9

    def test_a_thousand_steps_on_a_table(self, noise: str) -> None:
        world = Joint(noise, schedule="cosine")
        found = counts(world, walked(world, 1000, 500)[-1].x)
        assert chi_square(found, 500 * world.table) > FALSE_ALARM


class TestBits:
    """The bound that a sampler's own chain gives."""

    def bound(self, world: Joint, count: int, rows: int) -> float:
        """Nats per position, rows spread over x_0 as the table says."""
        index = torch.multinomial(
            world.table, rows, replacement=True, generator=torch.Generator().manual_seed(5)
        )
        draws: Iterator[int] = iter(range(10_000))
        noise = lambda t, u: uniforms(rows, world.all, seed=next(draws))  # noqa: E731
        found = nats(bits(world, world.all[index], times(count), {}, noise))
        own = -world.table[index].log() / world.all.shape[-1]
        return float((found - own).mean())  # above the entropy; its own spread taken out

    @pytest.mark.parametrize("noise", list(KINDS))
    def test_falls_to_the_entropy_with_the_steps(self, noise: str) -> None:
        world = Joint(noise)
        above = [self.bound(world, count, 4000) for count in (1, 4, 64)]
        assert above[0] > above[1] > above[2]
        assert above[2] == pytest.approx(0, abs=0.01)

    def test_one_step_is_the_entropy_of_the_marginals(self) -> None:
        world = Joint("absorbing")
        p = world.marginals[:, 0]
        marginal = -float((p * p.log()).sum()) / 2
        found = nats(bits(world, world.all, times(1), {}, lambda t, u: uniforms(9, world.all)))
        assert float(found @ world.table) == pytest.approx(marginal, rel=1e-12)

    def test_a_single_position_is_tight_with_any_steps(self) -> None:
        """What absorbing says of it is −log p, whatever was drawn, where the mask is lifted once:
        the mean over the draws is exact."""
        world = Joint("absorbing", positions=1)
        n = 3000
        u = ((torch.arange(n).double() + 0.5) / n)[:, None, None, None].expand(-1, 3, 1, 1)
        x0 = world.all[:1].expand(n, -1, -1, -1)
        found = nats(bits(world, x0, times(3), {}, lambda t, u_: u)).mean()
        assert float(found) == pytest.approx(-float(world.table[0].log()), rel=1e-9)

    def test_is_infinite_where_masks_are_not_all_there_is_at_the_start(self) -> None:
        world = Joint("absorbing", schedule="linear")
        found = bits(world, world.all, times(2), {}, lambda t, u: uniforms(9, world.all))
        assert bool(found.isinf().all())


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("count", [1, 7, 200])
class TestAbsorbing:
    def test_a_state_that_shows_stays(self, name: str, count: int) -> None:
        world = Joint("absorbing", positions=3)
        before = torch.zeros(50, 3, 1, 3).double()
        for step in walked(world, count, 50, name):
            shown = before.sum(1, keepdim=True) > 0
            assert torch.equal(torch.where(shown, step.x, 0), before)
            before = step.x
        assert torch.equal(before.sum(1), torch.ones(50, 1, 3).double())

    def test_steps_are_numbered_and_hold_probabilities(self, name: str, count: int) -> None:
        world = Joint("absorbing", positions=3)
        found = walked(world, count, 5, name)
        assert [(step.index, step.count) for step in found] == [(i, count) for i in range(count)]
        assert [float(step.t) for step in found] == times(count)[1:].tolist()
        assert torch.allclose(found[0].x0, world.marginals.expand(5, -1, -1, -1))
        assert torch.allclose(found[-1].x0.sum(1), torch.ones(5, 1, 3).double())


class TestMaskgit:
    def test_a_share_sigma_stays_masked(self) -> None:
        world = Joint("absorbing", positions=6, states=2)
        masks = [6 - step.x.sum((1, 2, 3)) for step in walked(world, 4, 20, "maskgit")]
        assert [set(each.tolist()) for each in masks] == [{4.0}, {3.0}, {1.0}, {0.0}]

    def test_the_surest_come_first(self) -> None:
        """Without disorder: the first position to show is where the drawn state was likeliest."""
        world = Joint("absorbing", positions=4, states=2)
        first = walked(world, 4, 200, "maskgit:disorder=0,temperature=0.1")[0]
        likeliest = world.marginals[:, 0].amax(0).argmax()
        shown = first.x.sum((1, 2)).argmax(1)
        assert float((shown == likeliest).double().mean()) > 0.95  # 0.99 draw the likelier state

    def test_other_states_are_refused(self) -> None:
        with pytest.raises(InputError, match="never masked; use 'categorical'"):
            walked(Joint("multinomial"), 2, 3, "maskgit")


def test_a_low_temperature_takes_the_likeliest() -> None:
    world = Joint("absorbing", states=4, positions=1)
    end = walked(world, 1, 100, "categorical:temperature=0.01")[-1].x
    assert torch.equal(counts(world, end).argmax(), world.table.argmax())
    assert float(counts(world, end).max()) == 100


def test_guidance_mixes_logits() -> None:
    """p ∝ p_u^(1 − λ)·p_c^λ."""

    class Told:
        corruption = Corruption(mixture(), "absorbing")

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            logits = torch.stack((f64(0.5, 0.3, 0.2).log(), f64(0.2, 0.7, 0.1).log()))
            return Prediction(logits[cond["label"]])

    guided = guide(Told(), Terms(3.0, {"label": torch.tensor([0])}), [spec("cfg")])
    p = guided(torch.zeros(1, 3), f64(0.5)[0], {"label": torch.tensor([1])}).x0.softmax(1)
    wanted = f64(0.5, 0.3, 0.2) ** -2 * f64(0.2, 0.7, 0.1) ** 3
    assert torch.allclose(p[0], wanted / wanted.sum())


@pytest.mark.parametrize("name", OWN)
class TestRefused:
    def test_a_denoiser_that_adds_noise(self, name: str) -> None:
        class Zero:
            corruption = Corruption(SCHEDULES.build(spec("flow")))

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                return Prediction(x)

        with pytest.raises(InputError, match="is for states, but this model adds normal noise"):
            list(SAMPLERS[name](Zero(), torch.zeros(1, 2), times(2), {}, None))

    @pytest.mark.parametrize("wrong", [[0.5], [0.5, 0.5], [0.2, 0.4, 0.0]])
    def test_times_that_do_not_fall(self, name: str, wrong: list[float]) -> None:
        world = Joint("absorbing")
        with pytest.raises(InputError, match="each below the one before"):
            list(SAMPLERS[name](world, world.all, f64(*wrong), {}, None))


def small(noise: str = "absorbing", codec: str = "levels:count=4", **sampling: object) -> Model:
    """A real network with every weight drawn at random."""
    config = ModelConfig(
        recipe="test",
        channels=1,
        height=8,
        width=8,
        classes=("a", "b"),
        codec=Spec.model_validate(codec),
        diffusion=DiffusionConfig(
            schedule=spec("flow"), noise=noise, parameterization=spec("x0"), told=spec("time")
        ),  # type: ignore[arg-type]
        network=spec("tokens", width=16, depth=1),
        sampling=SamplingConfig(
            **{"sampler": spec("categorical"), "grid": spec("uniform"), "steps": 5} | sampling
        ),  # type: ignore[arg-type]
    )
    network = build_network(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return assemble(config, network.eval())


class TestGenerate:
    @pytest.mark.parametrize("noise", list(KINDS))
    def test_a_picture_does_not_depend_on_its_batch(self, noise: str) -> None:
        model, asked = small(noise, guidance=2.0), [Ask(i % 2) for i in range(12)]
        together = torch.cat(list(pictures(model, asked, seed=3, batch=12)))
        for batch in (1, 5):
            assert torch.equal(
                torch.cat(list(pictures(model, asked, seed=3, batch=batch))), together
            )
        assert together.shape == (12, 1, 8, 8)
        even = torch.linspace(-1, 1, 4)
        assert float((together[..., None] - even).abs().amin(-1).max()) < 1e-6
        assert not torch.equal(torch.cat(list(pictures(model, asked, seed=4))), together)

    def test_masks_are_gray_on_the_way(self) -> None:
        model = small()
        first = next(steps(model, [Ask(0)] * 4))
        hidden = first.x.sum(1, keepdim=True) == 0
        assert 0.5 < float(hidden.float().mean()) < 1
        assert float(model.codec.decode(first.x)[hidden].abs().max()) == 0

    def test_samplers_of_pictures_are_refused(self) -> None:
        model = small()
        with pytest.raises(InputError, match="'heun' does not go with absorbing noise"):
            steps(model, [Ask()], sampling=sampling_of(model, sampler="heun"))

    def test_clipping_is_refused(self) -> None:
        with pytest.raises(InputError, match="leave out --threshold"):
            steps(small(threshold=spec("static")), [Ask()])


def test_states_need_a_codec_that_makes_them() -> None:
    with pytest.raises(ConfigError, match="set --codec levels"):
        small(codec="symmetric")
