import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from couette.config import DataConfig
from couette.contracts import Batch
from couette.data import Dataset, Splits, open_data, to_float
from couette.errors import ShapeError
from couette.evaluation.features import (
    ClassifierObjective,
    FeatureNetwork,
    FeatureSpace,
    _key,
    _settings,
    feature_space,
    turned,
)
from couette.runtime import Runtime


@pytest.fixture(scope="module")
def digits() -> Splits:
    return open_data(DataConfig(source="digits", resolution=8, limit=300))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def space(digits: Splits, cache: Path) -> FeatureSpace:
    return feature_space(digits.train, cache=cache)


def unlabelled(data: Dataset) -> Dataset:
    return replace(data, labels=None, classes=(), fingerprint="")


def test_it_learns_the_classes_from_the_training_pictures(
    space: FeatureSpace, digits: Splits
) -> None:
    assert digits.test is not None
    assert space.task == "classes"
    assert space.accuracy(digits.test, torch.arange(len(digits.test))) > 0.85


def test_features_have_mean_variance_one_and_probabilities_sum_to_one(
    space: FeatureSpace, digits: Splits
) -> None:
    seen = space.see_data(digits.train, torch.arange(len(digits.train)))
    assert seen.features.shape == (len(digits.train), 64)
    assert float(seen.features.var(0).mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(seen.probabilities.sum(1), torch.ones(len(digits.train)).double())


def test_the_cache_gives_back_the_same_network(
    space: FeatureSpace, digits: Splits, cache: Path
) -> None:
    again = feature_space(digits.train, cache=cache)
    assert not again.fresh
    assert again.digest == space.digest
    pictures = to_float(digits.train.pictures(torch.arange(9)))
    assert torch.equal(again.see(pictures).features, space.see(pictures).features)


def test_other_data_never_meet_this_cache(digits: Splits) -> None:
    values = digits.train.values.clone()
    values[0, 0, 0] += 1
    other = replace(digits.train, values=values, fingerprint="")
    settings = _settings(digits.train, "classes")
    keys = [_key(data, "classes", 8, settings) for data in (digits.train, other)]
    assert keys[0] != keys[1]


def test_a_damaged_cache_is_made_anew_to_the_bit(
    space: FeatureSpace, digits: Splits, cache: Path, tmp_path: Path
) -> None:
    (kept,) = cache.iterdir()
    (tmp_path / kept.name).write_bytes(kept.read_bytes()[:-7])
    before = torch.random.get_rng_state()
    again = feature_space(digits.train, cache=tmp_path)
    assert (space.fresh, again.fresh) == (True, True)
    assert again.digest == space.digest == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert (tmp_path / kept.name).read_bytes() == kept.read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_classes_it_learns_quarter_turns(digits: Splits, tmp_path: Path) -> None:
    assert digits.test is not None
    train, test = unlabelled(digits.train), unlabelled(digits.test)
    found = feature_space(train, cache=tmp_path)
    assert found.task == "rotations"
    assert found.accuracy(test, torch.arange(len(test))) > 0.6  # chance is 0.25


def test_turned_pictures_and_their_answers() -> None:
    pictures = torch.arange(8.0).reshape(2, 1, 2, 2)
    four, answers = turned(pictures)
    assert answers.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(four[:2], pictures)
    assert torch.equal(four[4:6], pictures.flip(2, 3))
    assert four[2, 0].tolist() == [[1, 3], [0, 2]]


def test_the_loss_of_turned_pictures_is_the_mean_over_the_turns() -> None:
    network = FeatureNetwork(1, 4, 8).eval()
    pictures, keys = torch.rand(3, 1, 8, 8), torch.zeros(3, 2, dtype=torch.int64)
    objective = ClassifierObjective(network, Runtime(), turns=True)
    losses = objective(Batch(pictures, {}, keys), "network")
    logs = [network(pictures.rot90(turn, (2, 3))).log_softmax(1)[:, turn] for turn in range(4)]
    torch.testing.assert_close(losses.loss, -torch.stack(logs).mean(0))


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (3, 28, 28), (3, 64, 48), (1, 5, 9), (3, 160, 200)]
)
def test_pictures_of_any_size_and_colour(channels: int, height: int, width: int) -> None:
    side = min(max(height, width, 8), 128)
    network = FeatureNetwork(channels, 5, side).eval()
    pictures = torch.rand(2, channels, height, width)
    assert network.prepare(pictures).shape == (2, channels, side, side)
    assert network.features(pictures).shape == (2, 64)
    assert network(pictures).shape == (2, 5)


def test_what_the_user_should_know_is_noted(tmp_path: Path) -> None:
    """Pictures that are not square, and a cache folder that can't be made."""
    (tmp_path / "file").touch()
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (40, 6, 9, 3), generator=generator, dtype=torch.uint8)
    found = feature_space(Dataset("noise", values), cache=tmp_path / "file" / "below")
    assert found.notes[0] == "The features look at pictures brought to 9×9."
    assert "not kept" in found.notes[1]


def test_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="coordinates"):
        feature_space(Dataset("dots", torch.zeros(9, 2, 1, 1)), cache=tmp_path)


@pytest.mark.slow
def test_digits_at_their_own_size_are_told_apart(tmp_path: Path) -> None:
    train, test = open_data(DataConfig(source="digits"))
    assert test is not None
    found = feature_space(train, cache=tmp_path)
    assert found.accuracy(test, torch.arange(len(test))) >= 0.97


@pytest.mark.slow
def test_mnist_is_told_apart(shared_data: Path, tmp_path: Path) -> None:
    train, test = open_data(DataConfig(source=str(shared_data / "mnist")))
    assert test is not None
    found = feature_space(train, cache=tmp_path)
    assert found.accuracy(test, torch.arange(len(test))) >= 0.99
