from __future__ import annotations

import pytest
import torch

from couette.contracts import Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks import count_parameters, plan
from couette.networks.vae import LOG_VARIANCE, VAE, Moments, PatchCritic
from couette.registry import NETWORKS
from couette.runtime import Runtime


def vae(channels: int = 3, side: int = 16, **settings: object) -> VAE:
    """A small autoencoder without a weight at zero, so that every part has its say."""
    torch.manual_seed(0)
    network = VAE(Sizes(channels, side, side), **{"width": 8, **settings})  # type: ignore[arg-type]
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    return network.eval()


class TestMoments:
    def test_divergence_is_the_closed_form(self) -> None:
        """Of N(2, 9): (4 + 9 − 1 − ln 9)/2; of N(0, 1): 0."""
        moments = Moments(torch.tensor([[2.0], [0.0]]), torch.tensor([[9.0], [1.0]]).log())
        found = moments.divergence()
        assert found is not None
        assert found.tolist() == pytest.approx([(12 - 2.1972245773) / 2, 0])

    def test_divergence_is_the_integral_and_sums_over_each_picture(self) -> None:
        """∫ q·log(q/p), over 12 deviations to either side."""
        mean, log_variance = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64).unbind()
        found = Moments(mean, log_variance).divergence()
        deviation = (log_variance / 2).exp()
        unit = torch.linspace(-12, 12, 4001, dtype=torch.float64)
        z = mean[..., None] + deviation[..., None] * unit
        ratio = (z.square() - unit.square()) / 2 - deviation.log()[..., None]
        density = (-unit.square() / 2).exp() / (2 * torch.pi) ** 0.5
        expected = (density * ratio).sum(-1).flatten(1).sum(1) * (24 / 4000)
        torch.testing.assert_close(found, expected)

    def test_a_sample_is_mean_and_deviation_times_noise(self) -> None:
        moments = Moments(torch.tensor([1.0, 1.0]), torch.tensor([0.25, 4.0]).log())
        torch.testing.assert_close(
            moments.sample(torch.tensor([2.0, -1.0])), torch.tensor([2.0, -1.0])
        )

    def test_without_a_variance_there_is_nothing_to_draw(self) -> None:
        moments = Moments(torch.tensor([1.0]), None)
        assert moments.divergence() is None
        assert moments.sample(torch.tensor([5.0])).tolist() == [1.0]
        assert moments.to(torch.float64) == (torch.tensor([1.0]).double(), None)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("variational", [True, False])
def test_shapes_there_and_back(factor: int, variational: bool) -> None:
    network = vae(2, factor=factor, latent=3, variational=variational)
    x = torch.randn(2, 2, 2 * factor, 3 * factor)
    mean, log_variance = network.encode(x)
    assert mean.shape == (2, 3, 2, 3)
    assert (log_variance is None) != variational
    assert log_variance is None or log_variance.shape == mean.shape
    assert network.decode(mean).shape == x.shape
    assert torch.equal(network(x, torch.zeros(2), {}), network.decode(mean))


def test_what_it_is_told_changes_nothing() -> None:
    network, x = vae(), torch.randn(1, 3, 8, 8)
    assert torch.equal(network(x, torch.zeros(1), {}), network(x, torch.ones(1), {}))
    assert NETWORKS.trait("vae", "gives") == "latents"
    with pytest.raises(ConfigError, match="can't be told 'label'"):
        network(x, torch.zeros(1), {"label": torch.zeros(1)})


def test_log_variances_are_clamped() -> None:
    network = vae()
    last = network.encoder[-1].conv
    last.weight.data[4:].mul_(1e4)
    with torch.no_grad():
        found = network.encode(torch.randn(2, 3, 16, 16)).log_variance
    assert found is not None
    assert (float(found.min()), float(found.max())) == LOG_VARIANCE


@pytest.mark.parametrize("sides", [(16, 18), (1, 1), (0, 0), (4, 0), (3, 1000)])
def test_sides_that_cannot_be_halved_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=r"multiples of 4\. .* would do"):
        VAE(Sizes(3, *sides), width=8)
    network = vae()
    with pytest.raises(ShapeError, match=r"multiples of 4|and was given \(1, 3"):
        network.encode(torch.zeros(1, 3, *sides))


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 16, 16), (1, 4, 16, 16)])
def test_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"takes pictures of \(B, 3, height, width\)"):
        vae().encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (4, 4, 4), (1, 4, 0, 0)])
def test_other_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"takes latents of \(B, 4, height, width\)"):
        vae().decode(torch.zeros(shape))


def test_levels_must_go_with_the_factor() -> None:
    assert vae(factor=2, multiples=(1, 3)).encoder[2].weight.shape[:2] == (24, 8)
    with pytest.raises(ConfigError, match="has 2 levels, and a factor of 4 needs 3"):
        vae(multiples=(1, 2))


@pytest.mark.parametrize(("factor", "blocks"), [(2, 1), (4, 1), (8, 1), (4, 2)])
def test_it_sees_as_far_as_it_says_and_no_farther(factor: int, blocks: int) -> None:
    """Latents in the middle against the pictures' pixels, and pixels against the latents."""
    network = vae(1, factor=factor, blocks=blocks).double()
    reach = network.reach
    size = 2 * reach + 3
    middle = slice(factor * (reach + 1), factor * (reach + 2))
    z = torch.randn(1, 4, size, 1, dtype=torch.float64, requires_grad=True)
    network.decode(z)[:, :, middle].sum().backward()
    assert z.grad is not None
    seen = z.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (1, size - 2)
    x = torch.randn(1, 1, factor * size, factor, dtype=torch.float64, requires_grad=True)
    network.encode(x).mean[:, :, reach + 1].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1, 3)).nonzero().flatten() // factor
    assert (int(seen.min()), int(seen.max())) == (1, size - 2)


def test_gradient_reaches_every_weight() -> None:
    network = vae()
    x = torch.randn(2, 3, 16, 16)
    moments = network.encode(x)
    made = network.decode(moments.sample(torch.randn(moments.mean.shape)))
    (made - x).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_rows_do_not_see_each_other() -> None:
    network, x = vae(), torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        whole = network(x, torch.zeros(3), {})
        torch.testing.assert_close(network(x[1:2], torch.zeros(1), {}), whole[1:2])


def test_maps_stay_in_their_layout_and_layouts_agree() -> None:
    network, x = vae(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = network(x, torch.zeros(2), {})
        placed = Runtime().place(network)
        rows = placed(x.contiguous(memory_format=torch.channels_last), torch.zeros(2), {})
    assert rows.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(rows, plain, rtol=1e-4, atol=1e-5)


def test_bfloat16_gives_nearly_the_same() -> None:
    network, x = vae(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        exact = network(x, torch.zeros(2), {})
        with Runtime(dtype="bfloat16").autocast():
            rounded = network(x, torch.zeros(2), {})
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_blocks_can_be_recomputed_and_planned() -> None:
    network = vae(blocks=2)
    Runtime(recompute=True).place(network)
    rows = plan(network, Sizes(3, 16, 16))
    assert [row.kind for row in rows].count("Block") == 12
    assert sum(row.parameters for row in rows) == count_parameters(network)


class TestCritic:
    @pytest.mark.parametrize("sides", [(16, 16), (10, 7), (1, 1), (2, 33)])
    def test_gives_a_logit_a_patch_whatever_the_size(self, sides: tuple[int, int]) -> None:
        logits = PatchCritic(3, 8)(torch.randn(2, 3, *sides))
        assert logits.shape == (2, 1, -(-sides[0] // 4), -(-sides[1] // 4))
        assert bool(logits.isfinite().all())

    def test_a_logit_sees_26_pixels(self) -> None:
        x = torch.randn(1, 1, 48, 48, requires_grad=True)
        PatchCritic(1, 8)(x)[0, 0, 6, 6].backward()
        assert x.grad is not None
        seen = x.grad[0, 0].nonzero()
        assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [26, 26]

    def test_pictures_do_not_see_each_other(self) -> None:
        critic, x = PatchCritic(3, 8), torch.randn(3, 3, 16, 16)
        torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))
