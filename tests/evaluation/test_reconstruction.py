from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from couette.codecs import Levels, Symmetric
from couette.codecs.latents import Latents
from couette.contracts import Sizes
from couette.data import Dataset, to_float
from couette.errors import DataError, ShapeError
from couette.evaluation.reconstruction import (
    peak_ratio,
    reconstruction,
    similarity,
    there_and_back,
)
from couette.networks.vae import VAE, Moments
from couette.runtime import Runtime

INDEX = torch.arange(5)


def data(channels: int = 1, side: int = 16) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (5, side, side, channels), generator=generator)
    return Dataset("made", values.to(torch.uint8))


class Shifted(Symmetric):
    """Gives pictures back lighter by a share of the scale from 0 to 1, and beyond it."""

    def __init__(self, by: float) -> None:
        self.by = by

    def decode(self, latents: Tensor) -> Tensor:
        return latents + 2 * self.by


def test_what_comes_back_exactly() -> None:
    found = reconstruction(Symmetric(), data(), INDEX)
    assert (found.count, found.psnr, found.error, found.rate) == (5, math.inf, 0, None)
    assert found.ssim == pytest.approx(1, abs=1e-12)


def test_a_shift_has_known_figures() -> None:
    """Flat pictures of grey level 102 = 0.4, given back as 0.5: 20 dB, and the SSIM is its
    comparison of means alone."""
    flat = Dataset("flat", torch.full((3, 16, 16, 1), 102, dtype=torch.uint8))
    found = reconstruction(Shifted(0.1), flat, torch.arange(3), batch=2)
    assert found.psnr == pytest.approx(20, abs=1e-4)
    assert found.error == pytest.approx(0.1, abs=1e-6)
    expected = (2 * 0.4 * 0.5 + 1e-4) / (0.4**2 + 0.5**2 + 1e-4)
    assert found.ssim == pytest.approx(expected, abs=1e-6)


def test_what_lies_beyond_the_range_is_cut_off() -> None:
    white = Dataset("white", torch.full((2, 16, 16, 1), 255, dtype=torch.uint8))
    assert reconstruction(Shifted(0.3), white, torch.arange(2)).error == 0


def test_batches_and_order_change_nothing() -> None:
    codec = Levels(count=4)
    whole = reconstruction(codec, data(), INDEX)
    parts = reconstruction(codec, data(), INDEX.flip(0), batch=2)
    assert whole.psnr == pytest.approx(parts.psnr, rel=1e-12)
    assert whole.ssim == pytest.approx(parts.ssim, rel=1e-12)
    # levels are 1/3 apart, so that errors are even in [0, 1/6]: 1/12 on average, 1/108 squared
    assert whole.error == pytest.approx(1 / 12, rel=0.05)
    assert whole.psnr == pytest.approx(10 * math.log10(108), abs=0.3)


class Sure(VAE):
    """Each latent is N(1, e²): (1 + e² − 1 − 2)/2 nats."""

    def encode(self, x: Tensor) -> Moments:
        ones = torch.ones(len(x), self.latent, x.shape[2] // 2, x.shape[3] // 2)
        return Moments(ones, 2 * ones)

    def decode(self, z: Tensor) -> Tensor:
        assert torch.allclose(z, torch.ones_like(z))
        return torch.zeros(len(z), 1, 2 * z.shape[2], 2 * z.shape[3])


def test_the_rate_is_the_divergence_in_bits_per_pixel() -> None:
    network = Sure(Sizes(1, 16, 16), factor=2, width=8, latent=3)
    codec = Latents(network, torch.tensor([0.5, 0, 0]), torch.tensor([2.0, 1, 1]), Runtime())
    found = reconstruction(codec, data(), INDEX, batch=2)
    assert found.rate == pytest.approx(3 / 4 * (math.e**2 - 2) / 2 / math.log(2), rel=1e-6)
    grey = (to_float(data().pictures(INDEX)).double() / 2).abs().mean()
    assert found.error == pytest.approx(float(grey))


def test_a_plain_autoencoder_has_no_rate() -> None:
    network = VAE(Sizes(1, 16, 16), factor=2, width=8, variational=False)
    codec = Latents(network, torch.zeros(4), torch.ones(4), Runtime())
    assert reconstruction(codec, data(), INDEX).rate is None


def test_what_comes_back_is_what_was_compared() -> None:
    """In the order that was asked for, and within the range."""
    index = torch.tensor([3, 0, 4])
    found, back = there_and_back(Shifted(0.3), data(), index, batch=2)
    expected = (to_float(data().pictures(index)) + 0.6).clamp(-1, 1)
    torch.testing.assert_close(back, expected)
    shift = (back - to_float(data().pictures(index))).abs().double().mean() / 2
    assert found.error == pytest.approx(float(shift), rel=1e-6)


def test_points_and_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="these are points"):
        reconstruction(Symmetric(), Dataset("points", torch.randn(4, 2, 1, 1)), INDEX)
    with pytest.raises(DataError, match="these are no pictures"):
        reconstruction(Symmetric(), data(), INDEX[:0])


class TestSimilarity:
    def test_is_the_formula_under_the_one_window_of_11_pixels(self) -> None:
        """Written out in numpy, with the window as a table of two coordinates."""
        a, b = torch.rand(2, 1, 1, 11, 11, dtype=torch.float64).unbind()
        y, x = np.mgrid[-5:6, -5:6]
        w = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
        w /= w.sum()
        p, q = a[0, 0].numpy(), b[0, 0].numpy()
        mp, mq = (w * p).sum(), (w * q).sum()
        vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
        cov = (w * (p - mp) * (q - mq)).sum()
        expected = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
        expected /= (mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)
        assert float(similarity(a, b)) == pytest.approx(expected, rel=1e-10)

    def test_agrees_with_skimage(self) -> None:
        metrics = pytest.importorskip("skimage.metrics")
        a, b = torch.rand(2, 1, 3, 24, 20, dtype=torch.float64).unbind()
        _, full = metrics.structural_similarity(
            a[0].numpy(), b[0].numpy(), channel_axis=0, gaussian_weights=True, data_range=1,
            sigma=1.5, use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert float(similarity(a, b)) == pytest.approx(full[:, 5:-5, 5:-5].mean(), rel=1e-9)

    def test_is_symmetric_and_below_one_for_what_differs(self) -> None:
        a, b = torch.rand(2, 3, 3, 13, 17).unbind()
        torch.testing.assert_close(similarity(a, b), similarity(b, a))
        assert bool((similarity(a, b) < 0.9).all())
        torch.testing.assert_close(similarity(a, a), torch.ones(3, dtype=torch.float64))

    def test_a_negative_has_a_negative_structure(self) -> None:
        a = torch.rand(1, 1, 32, 32)
        assert float(similarity(a, 1 - a)) < -0.5

    @pytest.mark.parametrize("sides", [(1, 1), (2, 8), (5, 30)])
    def test_tiny_pictures_have_a_smaller_window(self, sides: tuple[int, int]) -> None:
        a = torch.full((1, 1, *sides), 0.2)
        expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
        assert float(similarity(a, a + 0.4)) == pytest.approx(expected, rel=1e-5)

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="one shape"):
            similarity(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))


def test_the_ratio_is_of_each_picture() -> None:
    a = torch.zeros(2, 1, 4, 4)
    b = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert peak_ratio(a, b).tolist() == pytest.approx([20, 40], abs=1e-4)
