import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.errors import ConfigError
from couette.networks.embeddings import FourierFeatures, log_spaced, random_normal, sinusoidal


def test_sinusoidal_by_hand() -> None:
    """Width 4: angular frequencies 1 and 10000^(-1/2) = 0.01; with shift 1, 1 and 10000^-1."""
    told = torch.tensor([3.0])
    plain = [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    torch.testing.assert_close(sinusoidal(told, 4)[0], torch.tensor(plain))
    flipped = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    torch.testing.assert_close(sinusoidal(told, 4, cosine_first=True)[0], torch.tensor(flipped))
    shifted = [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4)]
    torch.testing.assert_close(sinusoidal(told, 4, shift=1)[0], torch.tensor(shifted))


def test_an_odd_width_ends_in_a_zero() -> None:
    told = torch.tensor([3.0, 5.0])
    odd = sinusoidal(told, 5)
    assert torch.equal(odd[:, :4], sinusoidal(told, 4))
    assert torch.equal(odd[:, 4], torch.zeros(2))


@pytest.mark.parametrize(("width", "shift"), [(0, 0), (1, 0), (2, 1)])
def test_a_width_without_frequencies_is_refused(width: int, shift: int) -> None:
    with pytest.raises(ConfigError, match="no frequencies"):
        sinusoidal(torch.zeros(1), width, shift=shift)


@given(st.floats(0, 1000), st.integers(1, 32), st.booleans())
def test_each_pair_lies_on_the_unit_circle(told: float, pairs: int, cosine_first: bool) -> None:
    waves = sinusoidal(torch.tensor([told]), 2 * pairs, cosine_first=cosine_first)
    radii = waves[0, :pairs] ** 2 + waves[0, pairs:] ** 2
    torch.testing.assert_close(radii, torch.ones(pairs))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("width", [32, 33])
def test_sinusoidal_is_that_of_diffusers(width: int, shift: int, flip: bool) -> None:
    reason = "diffusers is the oracle here; it comes with the dev extra"
    embeddings = pytest.importorskip("diffusers.models.embeddings", reason=reason)
    told = torch.tensor([0.0, 1.0, 10.5, 999.0])
    theirs = embeddings.get_timestep_embedding(
        told, width, flip_sin_to_cos=flip, downscale_freq_shift=shift
    )
    ours = sinusoidal(told, width, cosine_first=flip, shift=shift)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_fourier_features_by_hand() -> None:
    features = FourierFeatures(torch.tensor([0.25, 1.0]))
    assert features.width == 4
    out = features(torch.tensor([1.0, 0.5]))
    expected = torch.tensor([[0.0, 1.0, 1.0, 0.0], [math.sqrt(0.5), -1.0, math.sqrt(0.5), 0.0]])
    torch.testing.assert_close(out, expected)


def test_frequencies_are_saved_and_not_learned() -> None:
    torch.manual_seed(0)
    first, second = FourierFeatures(random_normal(8)), FourierFeatures(random_normal(8))
    told = torch.tensor([0.3])
    assert not torch.equal(first(told), second(told))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(told), second(told))
    assert list(first.parameters()) == []


def test_log_spaced_frequencies_have_one_ratio() -> None:
    frequencies = log_spaced(5, 0.01, 100.0)
    torch.testing.assert_close(frequencies, torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0]))


def test_random_frequencies_have_the_bandwidth() -> None:
    torch.manual_seed(0)
    assert random_normal(100_000, bandwidth=3.0).std().item() == pytest.approx(3.0, rel=0.02)
