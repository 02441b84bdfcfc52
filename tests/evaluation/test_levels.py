import pytest
import torch

from couette.config import DataConfig, DiffusionConfig, spec
from couette.data import Dataset, open_data, to_float
from couette.evaluation.levels import COUNT, loss_by_level, times_of
from couette.model import assemble, build_network
from evaluation.small_models import config, parrot, untrained


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data(DataConfig(source="digits", resolution=8, limit=60)).train


def test_the_levels_are_quantiles_of_the_times_that_training_draws(digits: Dataset) -> None:
    found = loss_by_level(untrained(digits), digits, torch.arange(2))
    # ln(sigma) is normal with mean -1.2 and deviation 1.2, and log-SNR is -2·ln(sigma)
    shares = (torch.arange(COUNT).double() + 0.5) / COUNT
    expected = (-2 * (-1.2 + 1.2 * torch.special.ndtri(shares))).tolist()
    assert found.log_snr == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_known_answer(digits: Dataset) -> None:
    """The parrot's x0 misses by the same amount at every level: the loss is that, 12 times over."""
    index = torch.arange(20)
    pictures = to_float(digits.pictures(index))
    assert digits.labels is not None
    model = parrot(digits)
    answers = model.network.get_buffer("pictures")[digits.labels[index]]
    expected = float((pictures - answers).square().mean())
    found = loss_by_level(model, digits, index, batch=7)
    assert found.loss == pytest.approx([expected] * COUNT, rel=1e-5)


def test_a_batch_changes_nothing_and_the_networks_mode_stays(digits: Dataset) -> None:
    model = untrained(digits)
    whole = loss_by_level(model, digits, torch.arange(12), batch=12)
    parts = loss_by_level(model, digits, torch.arange(12), batch=5)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-4)
    assert not model.network.training


def test_another_seed_is_other_noise(digits: Dataset) -> None:
    model = untrained(digits)
    one, other = (loss_by_level(model, digits, torch.arange(4), seed=s).loss for s in (0, 1))
    assert one != other
    assert one == loss_by_level(model, digits, torch.arange(4), seed=0).loss


def test_a_one_step_denoiser_has_one_level(digits: Dataset) -> None:
    diffusion = DiffusionConfig(times=spec("fixed", sigma=0.5))
    described = config(digits, diffusion)
    model = assemble(described, build_network(described).eval())
    assert times_of(model).numel() == 1
    found = loss_by_level(model, digits, torch.arange(2))
    assert found.log_snr == pytest.approx([-2 * torch.tensor(0.5).log().item()], rel=1e-5)
