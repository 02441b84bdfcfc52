from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from couette.config import TrainingConfig, spec
from couette.contracts import Batch, Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks import UNet
from couette.networks.vae import VAE
from couette.registry import OBJECTIVES
from couette.runtime import Runtime
from couette.tensors import Stream, normal
from couette.training import PowerAverage, Trainer
from couette.training.autoencoder import AutoencoderObjective
from couette.training.plan import Plan

SIDE = 8
KEYS = torch.tensor([[3, 0], [1, 2], [7, 1], [0, 0]])


def pictures(count: int = 4, side: int = SIDE) -> Tensor:
    """Smooth gray pictures in [-1, 1]."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randn(count, 1, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, (side, side), mode="bilinear").tanh()


def batch(side: int = SIDE) -> Batch:
    return Batch(pictures(side=side), {}, KEYS)


def network(**settings: Any) -> VAE:
    torch.manual_seed(0)
    made = VAE(Sizes(1, SIDE, SIDE), **{"factor": 2, "width": 8, "latent": 2, **settings})
    for parameter in made.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    return made


def objective(
    made: nn.Module | None = None, seed: int = 0, **settings: Any
) -> AutoencoderObjective:
    made = network() if made is None else made
    own = OBJECTIVES.check(spec("autoencoder", **settings))
    return AutoencoderObjective(made, Runtime(), seed, **own)


def test_the_loss_is_the_formula() -> None:
    """Written out: encode, sample with the keyed noise, decode, compare, and the KL by hand."""
    made, given = network(), batch()
    mean, log_variance = made.encode(given.data)
    assert log_variance is not None
    z = mean + (log_variance / 2).exp() * normal(9, KEYS, Stream.NOISE, mean.shape[1:])
    difference = made.decode(z) - given.data
    kl = ((mean.square() + log_variance.exp() - 1 - log_variance) / 2).sum((1, 2, 3))
    for distance, error in (("l1", difference.abs()), ("l2", difference.square())):
        found = objective(made, 9, distance=distance, kl=0.25)(given, "network")
        expected = error.mean((1, 2, 3)) + 0.25 * kl / (2 * 4 * 4)
        torch.testing.assert_close(found.loss, expected)
        torch.testing.assert_close(found.logs["error"], difference.abs().mean((1, 2, 3)))
        torch.testing.assert_close(found.logs["mse"], difference.square().mean((1, 2, 3)))
        torch.testing.assert_close(found.logs["kl"], kl)
        assert not any(value.requires_grad for value in found.logs.values())


def test_the_loss_does_not_grow_with_the_picture() -> None:
    """Of flat pictures, without a border's influence: the losses per pixel of 16 and of 64."""

    class Flat(VAE):
        def encode(self, x: Tensor) -> Any:
            return (
                super()
                .encode(x)
                ._replace(mean=x[:, :, ::2, ::2].repeat(1, 2, 1, 1) / 3, log_variance=None)
            )

        def decode(self, z: Tensor) -> Tensor:
            return z[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)

    made = objective(Flat(Sizes(1, SIDE, SIDE), factor=2, width=8, latent=2))
    losses = [
        made(Batch(torch.full((1, 1, side, side), 0.6), {}, KEYS[:1])).loss for side in (8, 32)
    ]
    assert losses == [pytest.approx(0.4), pytest.approx(0.4)]


def test_noise_depends_on_seed_sample_and_epoch_alone() -> None:
    made, given = network(), batch()

    def error(rows: slice, keys: Tensor = KEYS, seed: int = 0) -> Tensor:
        part = Batch(given.data[rows], {}, keys[rows])
        with torch.no_grad():
            result: Tensor = objective(made, seed)(part).logs["error"]
        return result

    whole = error(slice(None))
    apart = torch.cat([error(slice(row, row + 1)) for row in range(4)])
    torch.testing.assert_close(apart, whole, rtol=1e-5, atol=1e-6)
    assert torch.equal(error(slice(None)), whole)
    assert (error(slice(None), KEYS + torch.tensor([0, 1])) != whole).all()
    assert (error(slice(None), KEYS + torch.tensor([1, 0])) != whole).all()
    assert (error(slice(None), seed=1) != whole).all()


def test_a_plain_autoencoder_has_no_noise_and_no_divergence() -> None:
    given = batch()
    made = objective(network(variational=False), kl=3.0)
    found = made(given)
    assert "kl" not in found.logs
    assert torch.equal(found.loss, found.logs["error"])
    assert torch.equal(found.loss, made(given._replace(keys=KEYS + 1)).loss)


class TestCritic:
    def test_each_phase_has_gradients_of_its_own_alone(self) -> None:
        made = objective(critic=0.5, critic_after=0)
        made(batch(), "network").loss.sum().backward()
        assert all(p.grad is not None for p in made.network.parameters())
        assert all(p.grad is None for p in made.critic.parameters())
        made.zero_grad()
        made(batch(), "critic").loss.sum().backward()
        assert all(p.grad is None for p in made.network.parameters())
        assert all(p.grad is not None for p in made.critic.parameters())
        # within the hinges the last bias adds to both sides alike
        assert all(p.grad.any() for p in made.critic.parameters() if p.ndim > 1)

    def test_the_hinge_loss_is_the_formula(self) -> None:
        made, given = objective(critic=0.5), batch()
        for parameter in made.critic.parameters():
            parameter.data.mul_(3)  # logits beyond the hinges' ends
        with torch.no_grad():
            found = made(given, "critic")
            x, (fake, _) = given.data, made._there_and_back(given)
            real, fake = made.critic(x), made.critic(fake)
        expected = ((1 - real).clamp(min=0) + (1 + fake).clamp(min=0)).mean((1, 2, 3)) / 2
        torch.testing.assert_close(found.loss, expected)
        torch.testing.assert_close(found.logs["real"], real.mean((1, 2, 3)))
        torch.testing.assert_close(found.logs["fake"], fake.mean((1, 2, 3)))

    def test_is_heard_from_the_step_on(self) -> None:
        made, given = objective(critic=0.5, critic_after=2), batch()
        plain = objective(made.network)(given).loss
        torch.testing.assert_close(made(given).loss, plain)
        made.updated(1)
        torch.testing.assert_close(made(given).loss, plain)
        made.updated(2)
        found = made(given)
        assert found.logs["adversarial"].abs().min() > 1e-4
        torch.testing.assert_close(found.loss, plain + 0.5 * found.logs["adversarial"])

    def test_its_gradient_makes_pictures_look_more_real_to_it(self) -> None:
        made, given = objective(critic=100.0, critic_after=0, kl=0.0), batch()
        before = made(given, "network")
        before.loss.mean().backward()
        with torch.no_grad():
            for parameter in made.network.parameters():
                parameter -= 1e-4 * parameter.grad
            after = made(given, "critic").logs["fake"].mean()
        assert after > -before.logs["adversarial"].mean() + 1e-4

    def test_without_one_there_is_one_phase(self) -> None:
        made = objective()
        assert list(made.phases()) == ["network"]
        assert [name for name, _ in made.named_children()] == ["network"]
        made.updated(3)
        with pytest.raises(ConfigError, match="has the phases network, not 'critic'"):
            made(batch(), "critic")

    def test_its_weights_are_the_seeds_and_draw_from_no_other_generator(self) -> None:
        torch.manual_seed(1)
        expected = torch.rand(1)
        made = network()
        torch.manual_seed(1)
        first = objective(made, critic=1.0).critic.state_dict()
        assert torch.equal(torch.rand(1), expected)
        second, other = (objective(made, seed, critic=1.0).critic.state_dict() for seed in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["enter.weight"], other["enter.weight"])


class TestPerceptual:
    def test_is_the_distance_of_unit_vectors(self) -> None:
        def features(x: Tensor) -> Sequence[Tensor]:
            return torch.cat((x, 1 - x), 1), torch.stack((x.mean((1, 2, 3)), x.amax((1, 2, 3))), 1)

        given = batch()
        made = objective(network(variational=False), perceptual=0.5)
        made.features = features
        found = made(given)
        x, fake = given.data, made._there_and_back(given)[0]
        parts = []
        for a, b in zip(features(x), features(fake), strict=True):
            a, b = (each / each.norm(dim=1, keepdim=True) for each in (a, b))
            parts.append((a - b).square().sum(1).reshape(4, -1).mean(1))
        expected = (parts[0] + parts[1]) / 2
        torch.testing.assert_close(found.logs["perceptual"], expected.detach())
        torch.testing.assert_close(found.loss, found.logs["error"] + 0.5 * expected)

    def test_without_features_it_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="set the objective's `features`"):
            objective(perceptual=1.0)(batch())

    def test_a_module_of_features_is_neither_saved_nor_trained(self) -> None:
        class Maps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, 4, 3).requires_grad_(False)

            def forward(self, x: Tensor) -> list[Tensor]:
                return [self.conv(x)]

        made = objective(perceptual=1.0)
        made.features = Maps().eval()
        made.train()
        assert not made.features.training
        assert [name for name, _ in made.named_children()] == ["network"]
        made(batch()).loss.sum().backward()
        assert all(p.grad is not None for p in made.network.parameters())


def test_other_networks_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trains the network 'vae', not UNet; give --network"):
        objective(UNet(Sizes(1, 8, 8), size="tiny", width=8))
    with pytest.raises(ShapeError, match="multiples of 2"):
        objective()(batch(side=7))


def stream(step: int) -> Batch:
    keys = torch.stack((torch.arange(4), torch.full((4,), step)), 1)
    return Batch(pictures(), {}, keys)


def trainer(steps: int, **settings: Any) -> Trainer:
    fields = {"steps": steps, "batch": 4, "lr": 3e-3, "warmup": 0, "optimizer": "adamw", **settings}
    config = TrainingConfig(**{k: v for k, v in fields.items() if k in TrainingConfig.model_fields})
    own = {k: v for k, v in settings.items() if k not in TrainingConfig.model_fields}
    made = Runtime().place(network())
    average = PowerAverage(made, 0.1)
    return Trainer(objective(made, **own), stream, config, Plan(config, 4), average)


def test_both_phases_learn() -> None:
    """The error falls to half; the critic does better than chance, whose hinge loss is 1."""
    run = trainer(22, critic=0.01, critic_after=5)
    found = list(run.run())
    assert all(bool(each.applied) for each in found)
    assert {"error", "mse", "kl", "adversarial", "critic", "real", "fake"} == set(found[0].logs)
    assert found[-1].logs["error"].mean() < found[0].logs["error"].mean() / 2
    assert torch.stack([each.logs["critic"] for each in found[1:]]).mean() < 0.7
    assert int(run.objective.critic.step) == 22


def test_parts_of_a_batch_give_its_losses() -> None:
    """Samples see neither each other nor how the batch is parted."""
    whole, parted = (
        next(trainer(1, critic=0.3, critic_after=0, accumulate=parts).run()) for parts in (1, 2)
    )
    assert whole.logs.keys() == parted.logs.keys()
    for name in ("error", "kl", "adversarial"):
        torch.testing.assert_close(whole.logs[name], parted.logs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_with_a_critic_comes_back_to_the_bit(optimizer: str) -> None:
    """Stopped once the critic is heard: that it is must be known in the very next step."""
    settings: dict[str, Any] = {"critic": 0.3, "critic_after": 2, "optimizer": optimizer}
    whole = trainer(6, **settings)
    losses = [float(each.loss) for each in whole.run()]
    first = trainer(6, **settings)
    begun = [float(each.loss) for each in itertools.islice(first.run(), 3)]
    files = {
        file: {n: v.clone(memory_format=torch.contiguous_format) for n, v in values.items()}
        for file, values in first.tensors().items()
    }
    assert set(files) == {"network", "critic", "average", "optimizer"}
    assert int(files["critic"]["step"]) == 3
    second = trainer(6, **settings)
    second.load(files, first.state())
    assert [*begun, *(float(each.loss) for each in second.run())] == losses
    ends = [
        {f"{f}/{n}": v for f, values in run.tensors().items() for n, v in values.items()}
        for run in (whole, second)
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
