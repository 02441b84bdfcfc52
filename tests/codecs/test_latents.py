from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.codecs.latents import Latents, cut, measure_latents
from couette.contracts import Codec, Sizes
from couette.errors import ConfigError, DataError, NotFinite, ShapeError
from couette.networks.vae import VAE, Moments
from couette.runtime import Runtime
from couette.tensors import Stream, normal

KEYS = torch.tensor([[3, 0], [1, 2], [7, 1]])


def network(**settings: Any) -> VAE:
    torch.manual_seed(0)
    made = VAE(Sizes(1, 8, 8), **{"factor": 2, "width": 8, "latent": 2, **settings})
    for parameter in made.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    return made


def latents(made: VAE | None = None, **settings: Any) -> Latents:
    mean, scale = torch.tensor([0.3, -0.2]), torch.tensor([0.5, 2.0])
    return Latents(made or network(), mean, scale, Runtime(), **settings)


def test_is_a_codec_between_the_shapes() -> None:
    codec: Codec = latents()
    x = torch.rand(3, 1, 12, 8) * 2 - 1
    z = codec.encode(x)
    assert z.shape == (3, *codec.shape(1, 12, 8)) == (3, 2, 6, 4)
    assert codec.decode(z).shape == x.shape
    assert not hasattr(codec, "low") and not hasattr(codec, "high")


def test_latents_are_the_networks_less_the_mean_over_the_scale() -> None:
    codec, x = latents(), torch.rand(3, 1, 8, 8) * 2 - 1
    mean, log_variance = codec.network.encode(x)
    assert log_variance is not None
    z = codec.encode(x)
    torch.testing.assert_close(z[:, 0], (mean[:, 0] - 0.3) / 0.5)
    torch.testing.assert_close(z[:, 1], (mean[:, 1] + 0.2) / 2)
    torch.testing.assert_close(codec.decode(z), codec.network.decode(mean))
    unit = (codec.encode(x, KEYS, 4) - z) * torch.tensor([0.5, 2.0])[:, None, None]
    unit = unit / (log_variance / 2).exp()
    assert float(unit.std()) == pytest.approx(1, abs=0.2)


def test_samples_are_keyed() -> None:
    codec, x = latents(), torch.rand(3, 1, 8, 8) * 2 - 1
    whole = codec.encode(x, KEYS, 4)
    for row in range(3):
        alone = codec.encode(x[row : row + 1], KEYS[row : row + 1], 4)
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-5, atol=1e-6)
    assert not torch.equal(codec.encode(x, KEYS, 5), whole)
    assert not torch.equal(codec.encode(x, KEYS + 1, 4), whole)
    assert not torch.equal(codec.encode(x), whole)


def test_samples_have_nothing_of_the_noise_that_diffusion_adds() -> None:
    """With one seed and the same keys: otherwise x_t would hold twice the same noise."""
    keys = torch.stack((torch.arange(400), torch.zeros(400, dtype=torch.int64)), 1)
    codec, x = latents(), torch.zeros(400, 1, 8, 8)
    drawn = (codec.encode(x, keys, 0) - codec.encode(x)).flatten()
    added = normal(0, keys, Stream.NOISE, (2, 4, 4)).flatten()
    correlation = torch.corrcoef(torch.stack((drawn, added)))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(drawn.numel())


def test_a_plain_autoencoder_is_sure() -> None:
    codec, x = latents(network(variational=False)), torch.rand(3, 1, 8, 8)
    assert torch.equal(codec.encode(x, KEYS), codec.encode(x))
    assert codec.moments(x).log_variance is None


def test_is_differentiable_both_ways_and_its_weights_are_frozen() -> None:
    codec = latents()
    x = (torch.rand(1, 1, 8, 8) * 2 - 1).requires_grad_()
    codec.encode(x, KEYS[:1]).square().sum().backward()
    assert x.grad is not None and bool(x.grad.abs().min() > 0)
    z = torch.randn(1, 2, 4, 4, requires_grad=True)
    codec.decode(z).square().sum().backward()
    assert z.grad is not None and bool(z.grad.abs().min() > 0)
    assert not any(p.requires_grad or p.grad is not None for p in codec.network.parameters())
    assert not codec.network.training


def test_gradient_through_tiles_is_that_of_the_whole() -> None:
    made, grads = network(), []
    weights = torch.randn(1, 1, 60, 8)
    for tile in (None, 24):
        z = torch.randn(1, 2, 30, 4, generator=torch.manual_seed(3)).requires_grad_()
        (latents(made, tile=tile).decode(z) * weights).sum().backward()
        assert z.grad is not None
        grads.append(z.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 29), (25, 6), (24, 61)])
def test_large_enough_tiles_are_exact(shape: tuple[int, int]) -> None:
    """4·reach + 4 = 24 positions: each pixel sees all that it sees in the whole."""
    made = network()
    assert 4 * made.reach + 4 == 24
    whole, tiled = latents(made), latents(made, tile=24)
    height, width = shape
    x = torch.rand(2, 1, 2 * height, 2 * width) * 2 - 1
    z = torch.randn(2, 2, height, width)
    with torch.no_grad():
        torch.testing.assert_close(tiled.decode(z), whole.decode(z), rtol=0, atol=1e-5)
        keys = KEYS[:2]
        torch.testing.assert_close(tiled.encode(x, keys), whole.encode(x, keys), rtol=0, atol=1e-5)


def test_small_tiles_come_near() -> None:
    """Less than 1 % of the pictures' deviation on average, for tiles of 16; worse with smaller."""
    made, z = network(), torch.randn(1, 2, 40, 40)
    with torch.no_grad():
        expected = latents(made).decode(z)
        misses = [
            float((latents(made, tile=tile).decode(z) - expected).abs().mean() / expected.std())
            for tile in (6, 10, 16)
        ]
    assert misses == sorted(misses, reverse=True)
    assert 0 < misses[2] < 0.01


def test_one_tile_is_the_whole_to_the_bit() -> None:
    made, z = network(), torch.randn(2, 2, 9, 12)
    x = torch.rand(2, 1, 18, 24)
    assert torch.equal(latents(made, tile=12).decode(z), latents(made).decode(z))
    assert torch.equal(latents(made, tile=12).encode(x), latents(made).encode(x))


@pytest.mark.parametrize("size", [4, 5, 23, 24, 25, 100])
@pytest.mark.parametrize("tile", [4, 5, 8, 24])
@pytest.mark.parametrize("fine", [1, 4])
def test_weights_of_tiles_sum_to_one(size: int, tile: int, fine: int) -> None:
    total = torch.zeros(fine * size)
    parts = cut(size, tile, 5, fine)
    for start, weights in parts:
        assert len(weights) == fine * min(size, tile)
        assert bool((weights >= 0).all())
        total[fine * start : fine * start + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones(fine * size))
    assert (len(parts) == 1) == (size <= tile)


def test_no_weight_within_reach_of_an_edge_inside() -> None:
    (_, first), (start, second) = cut(40, 28, 5, 2)
    assert start == 12
    assert not second[: 2 * 5].any() and not first[-2 * 5 :].any()
    assert first[: 2 * 12].eq(1).all() and second[-2 * 12 :].eq(1).all()


@pytest.mark.parametrize(
    ("mean", "scale", "told"),
    [
        ([0.0], [1.0, 1.0], "mean of the latents must be 2 finite"),
        ([0.0, math.nan], [1.0, 1.0], "mean of the latents must be 2 finite"),
        ([0.0, 0.0], [1.0], "scale of the latents must be 2 finite"),
        ([0.0, 0.0], [1.0, math.inf], "scale of the latents must be 2 finite"),
        ([0.0, 0.0], [1.0, 0.0], "must be above 0"),
    ],
)
def test_hostile_scales_are_refused(mean: list[float], scale: list[float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Latents(network(), torch.tensor(mean), torch.tensor(scale), Runtime())


def test_hostile_sizes_are_refused() -> None:
    codec = latents()
    with pytest.raises(ShapeError, match="1 channels, not 3"):
        codec.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="multiples of 2"):
        codec.shape(1, 8, 7)
    with pytest.raises(ShapeError, match="takes latents of"):
        codec.decode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ConfigError, match=r"Tiles of 3 .* at least 4, best 24"):
        latents(tile=3)


class Given(VAE):
    """An encoder that says of a picture (B, 1, 8, 8) what is in it: mean and log variance."""

    def encode(self, x: Tensor) -> Moments:
        rows = x[:, 0, :4].reshape(len(x), 2, 4, 4)
        return Moments(rows, None if not self.variational else x[:, 0, 4:].reshape(rows.shape))


class TestMeasure:
    def test_is_of_sampled_latents_whatever_the_batches(self) -> None:
        """The variance of all means, and the mean of all variances, at once."""
        made = Given(Sizes(1, 8, 8), factor=2, width=8, latent=2)
        x = torch.randn(50, 1, 8, 8) * 3 + 1
        x[:, :, 4:] -= 2
        means, log_variances = (each.double() for each in made.encode(x))
        expected = (means.var((0, 2, 3), correction=0) + log_variances.exp().mean((0, 2, 3))).sqrt()
        for size in (50, 7, 1):
            mean, scale = measure_latents(made, x.split(size), Runtime())
            torch.testing.assert_close(mean, means.mean((0, 2, 3)).float())
            torch.testing.assert_close(scale, expected.float())
        z = Latents(made, mean, scale, Runtime()).encode(
            x.repeat(40, 1, 1, 1), torch.arange(4000).reshape(-1, 2)
        )
        assert z.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=0.03)
        # A few wide variances decide: 2,000 pictures leave five per cent of doubt.
        assert z.std((0, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.1)

    def test_is_exact_far_from_zero(self) -> None:
        """A deviation of 1 around 1,000,000: squares summed in float32 would give nothing."""
        made = Given(Sizes(1, 8, 8), factor=2, width=8, latent=2, variational=False)
        x = torch.tensor([1e6 - 1, 1e6 + 1]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
        mean, scale = measure_latents(made, x.split(1), Runtime())
        # 1e-6 of the mean is the least deviation that float32 latents have
        assert mean.tolist() == [1e6, 1e6]
        assert scale.tolist() == [1.0, 1.0]
        mean, scale = measure_latents(made, [1e4 + 3 * (x - 1e6)], Runtime())
        assert (mean.tolist(), scale.tolist()) == ([1e4, 1e4], [3.0, 3.0])

    def test_a_constant_channel_is_left_alone(self) -> None:
        made = Given(Sizes(1, 8, 8), factor=2, width=8, latent=2, variational=False)
        x = torch.full((3, 1, 8, 8), 0.7)
        x[:, :, :2] = torch.randn(3, 1, 2, 8)
        _, scale = measure_latents(made, [x, x[:1]], Runtime())
        assert scale[1] == 1 and scale[0] != 1

    def test_leaves_the_network_as_it_was(self) -> None:
        made = network().train()
        mean, scale = measure_latents(made, [torch.randn(4, 1, 8, 8)], Runtime())
        assert made.training and all(p.requires_grad for p in made.parameters())
        assert not mean.requires_grad and mean.dtype == scale.dtype == torch.float32

    def test_nothing_and_nan_are_refused(self) -> None:
        with pytest.raises(DataError, match="none were given"):
            measure_latents(network(), [], Runtime())
        with pytest.raises(DataError, match="none were given"):
            measure_latents(network(), [torch.zeros(0, 1, 8, 8)], Runtime())
        with pytest.raises(NotFinite, match="not finite"):
            measure_latents(network(), [torch.full((1, 1, 8, 8), math.nan)], Runtime())
