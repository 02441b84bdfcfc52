import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from couette.config import DataConfig, DiffusionConfig, spec
from couette.contracts import Sizes
from couette.data import Dataset, Splits, open_data
from couette.errors import CouetteError, DataError, InputError, ShapeError, UnknownName
from couette.evaluation import Part, Report, default_count, evaluate, write
from couette.evaluation.encoders import measure_autoencoder
from couette.evaluation.judge import _rounds
from couette.evaluation.report import Ahead, Floor, Losses, Samples, Space
from couette.model import assemble, build_network
from couette.networks.vae import VAE, Moments
from couette.runtime import Runtime
from evaluation.small_models import both, config, parrot, untrained


@pytest.fixture(scope="module")
def digits() -> Splits:
    return open_data(DataConfig(source="digits", resolution=8, limit=300))


@pytest.fixture(scope="module")
def measured(digits: Splits) -> Iterator[tuple[Report, list[Part]]]:
    parts: list[Part] = []
    yield evaluate(both(digits.train), digits, count=60, watch=parts.append), parts


def test_the_floor_is_known_before_anything_is_drawn(measured: tuple[Report, list[Part]]) -> None:
    report, parts = measured
    assert [type(part) for part in parts] == [Ahead, Space, Floor, Losses, Losses, Samples]
    assert [line for part in parts[1:] for line in part.lines()] == report.lines()


class Begun(Exception):
    """Raised to stop where the long parts would begin."""


def ahead(splits: Splits, count: int = 18) -> list[str]:
    """What is said before anything else."""

    def stop(part: Part) -> None:
        raise Begun(part)

    with pytest.raises(Begun) as begun:
        evaluate({"weights": untrained(splits.train)}, splits, count=count, watch=stop)
    (part,) = begun.value.args
    assert isinstance(part, Ahead)
    return part.lines()


def test_what_takes_long_is_said_beforehand(
    measured: tuple[Report, list[Part]],
    digits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = "losses are measured, then 60 samples of the weights are drawn (euler, 1 step)."
    assert ahead(digits, 60) == [f"Next: {drawn}"]  # the network is kept from `measured`
    monkeypatch.setenv("COUETTE_CACHE", str(tmp_path))
    trained = "a network to judge by is trained on the 270 training pictures, and kept"
    assert ahead(digits, 60) == [f"Next: {trained}, then {drawn}"]


def test_few_held_out_pictures_are_said() -> None:
    few = open_data(DataConfig(source="digits", resolution=8, limit=20))
    note = "Only 2 pictures are held out: what is measured on so few means little."
    assert ahead(few)[1:] == [note]
    with pytest.raises(InputError, match=f"give 2 to 18, .* {note}"):
        ahead(few, 20)


def test_a_model_that_copies_is_found_out(
    measured: tuple[Report, list[Part]], digits: Splits
) -> None:
    """Its ten pictures are real ones: all copies, nearly all of the class that was asked for."""
    report, _ = measured
    found = report.samples["average"]
    assert found.copies is not None and found.judged is not None
    assert found.copies.share == 1
    assert found.copies.real_share < 0.2
    pairs = report.pairs["average"]
    assert torch.equal(pairs.generated, pairs.training)
    assert pairs.distance.tolist() == [0] * 60
    assert found.judged.accuracy is not None and found.judged.accuracy > 0.8
    assert set(found.judged.by_class) == set(digits.train.classes)
    assert found.above > 0  # ten pictures are not the variety of sixty


def test_only_the_last_model_is_sampled_unless_named(digits: Splits) -> None:
    report = evaluate(both(digits.train), digits, count=12, draw=["weights"])
    assert list(report.samples) == ["weights"]
    assert list(report.losses) == ["weights", "average"]
    found, floor = report.samples["weights"], report.floor
    assert found.floor == floor.distances.frechet
    assert found.distances.frechet > 3 * found.floor  # noise, against real digits


def test_the_floor_has_as_many_pictures_as_there_are_samples(
    measured: tuple[Report, list[Part]], digits: Splits
) -> None:
    floor = measured[0].floor
    assert digits.test is not None
    assert (floor.count, floor.held_out) == (60, len(digits.test))


def test_the_same_seed_gives_the_same_report_at_any_batch_size(digits: Splits) -> None:
    one, other = (
        evaluate({"weights": untrained(digits.train)}, digits, count=10, batch=batch)
        for batch in (10, 4)
    )
    assert one.floor == other.floor
    assert one.space == other.space
    a, b = one.samples["weights"], other.samples["weights"]
    assert a.distances.frechet == pytest.approx(b.distances.frechet, rel=1e-3)
    assert a.copies == b.copies


def test_the_files(measured: tuple[Report, list[Part]], tmp_path: Path) -> None:
    report, _ = measured
    written = write(report, tmp_path / "evaluation")
    assert [path.name for path in written] == [
        "report.json",
        "report.txt",
        "levels.png",
        "classes.png",
        "neighbours-average.png",
        "closest-average.png",
    ]
    assert all(path.stat().st_size for path in written)
    kept = json.loads(written[0].read_text())
    assert kept["samples"]["average"]["above"] == report.samples["average"].above
    assert kept["space"]["weights"] == report.space.weights
    assert written[1].read_text().splitlines() == report.lines()


class Counted(VAE):
    """Counts the pictures that it encodes."""

    seen = 0

    def encode(self, x: torch.Tensor) -> Moments:
        self.seen += len(x)
        return super().encode(x)


def test_an_autoencoder_sees_each_picture_once(digits: Splits) -> None:
    """Those of training for the mean and scale of its latents, the others to give them back."""
    assert digits.test is not None
    network = Counted(Sizes(1, 8, 8), factor=4, width=8)
    found = measure_autoencoder(network, digits, Runtime())
    assert found.figures["count"] == len(digits.test)
    assert network.seen == len(digits.train) + len(digits.test)
    assert found.figures["frechet"] > found.figures["floor"]


def test_points_are_compared_by_their_coordinates() -> None:
    moons = open_data(DataConfig(source="moons", limit=400))
    small = spec("points", hidden=8, depth=1)
    model = untrained(moons.train, network=small, classes=(), height=1, width=1, channels=2)
    report = evaluate({"weights": model}, moons, count=50)
    assert report.space.task == "coordinates"
    assert report.floor.distances.sliced is not None
    found = report.samples["weights"]
    assert found.copies is None and found.judged is None
    assert "sliced" in found.lines()[0]
    assert report.pairs == {}


def test_a_model_without_classes_is_judged_by_confidence_alone(digits: Splits) -> None:
    model = untrained(digits.train, classes=())
    found = evaluate({"weights": model}, digits, count=10).samples["weights"].judged
    assert found is not None
    assert found.accuracy is None
    assert 0.1 <= found.confidence <= 1


def test_a_one_step_denoiser_is_not_sampled(digits: Splits) -> None:
    described = config(digits.train, DiffusionConfig(times=spec("fixed", sigma=0.5)))
    model = assemble(described, build_network(described))
    report = evaluate({"weights": model}, digits, count=10)
    assert report.samples == {}
    assert len(report.losses["weights"].held_out) == 1
    assert any("one-step" in line for line in report.lines())
    assert model.network.training  # as it was


def test_other_data_and_other_classes_are_said(digits: Splits) -> None:
    renamed = [
        replace(data, classes=tuple("abcdefghij"), fingerprint="") for data in digits if data
    ]
    report = evaluate({"weights": untrained(digits.train)}, Splits(*renamed), count=10)
    notes = " ".join(report.notes)
    assert "trained on other data" in notes
    assert "no class was asked for" in notes


def test_what_can_not_be_measured_is_refused(digits: Splits) -> None:
    models = {"weights": untrained(digits.train)}
    with pytest.raises(DataError, match="holdout"):
        evaluate(models, Splits(digits.train, None))
    for count in (1, 271):
        with pytest.raises(InputError, match="2 to 270"):
            evaluate(models, digits, count=count)
    with pytest.raises(UnknownName, match="did you mean 'weights'"):
        evaluate(models, digits, draw=["wieghts"])
    with pytest.raises(InputError, match="no model"):
        evaluate({}, digits)
    large = open_data(DataConfig(source="digits", limit=40))
    with pytest.raises(ShapeError, match=r"\(1, 8, 8\)"):
        evaluate(models, large)


def test_answers_that_are_not_finite_are_refused(digits: Splits) -> None:
    broken = parrot(digits.train)
    broken.network.get_buffer("pictures").fill_(float("nan"))
    with pytest.raises(CouetteError, match="Losses of the weights are not finite"):
        evaluate({"weights": broken}, digits, count=10)


@pytest.mark.parametrize(
    ("train", "test", "count"),
    [(60_000, 10_000, 2_000), (1_617, 180, 500), (180, 20, 180), (5_000, 800, 800)],
)
def test_how_many_samples_unless_asked(train: int, test: int, count: int) -> None:
    parts = [Dataset("zeros", torch.zeros(n, 1, 1, 1, dtype=torch.uint8)) for n in (train, test)]
    assert default_count(Splits(*parts)) == count


def test_rounds_take_one_of_each_class_in_turn() -> None:
    labels = torch.tensor([2, 2, 0, 2, 0, 1])
    assert labels[_rounds(labels)].tolist() == [0, 1, 2, 0, 2, 2]
    assert _rounds(labels).tolist() == [2, 5, 0, 4, 1, 3]
