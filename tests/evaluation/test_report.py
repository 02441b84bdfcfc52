import pytest

from couette.evaluation.neighbours import reserve
from couette.evaluation.report import Copies, Distances, Floor, Judged, Losses, Samples, Space


def samples(frechet: float, floor: float, **more: object) -> Samples:
    return Samples.model_validate(
        {
            "model": "average",
            "count": 1000,
            "sampling": "heun, 18 steps",
            "distances": Distances(frechet=frechet, kernel=0.02, kernel_error=0.001),
            "floor": floor,
            "seconds": 12.3,
            **more,
        }
    )


def test_above_the_floor_and_times_it() -> None:
    found = samples(3.0, 0.5)
    assert found.above == 2.5
    assert found.times == 6
    assert "above the floor: 2.5, 6.00 times the floor" in found.lines()[1]
    assert samples(3.0, 0.0).times is None


def test_the_weakest_classes_are_named_and_the_perfect_ones_are_not() -> None:
    by_class = {"cat": 0.9, "dog": 0.5, "owl": 1.0, "hen": 0.7, "pig": 0.99}
    judged = Judged(confidence=0.9, accuracy=0.818, by_class=by_class)
    line = samples(1, 1, judged=judged).lines()[2]
    assert line.endswith(
        "81.8% classified as asked, mean confidence 0.90; weakest: dog 50%, hen 70%, cat 90%."
    )


def test_copies_stand_beside_real_pictures() -> None:
    copies = Copies(
        searched=1000,
        share=0.02,
        real=90,
        real_share=0.011,
        threshold=0.7,
        false_alarms=0.01,
        training=1800,
        made_from=90,
    )
    (line,) = copies.lines()
    assert "2.0% of 1,000" in line and "1.1% of 90 real" in line and "1.0%)" in line
    few = copies.model_copy(update={"training": 18, "made_from": 1})
    assert few.lines() == [line, f"    {reserve(18, 1)}"]


@pytest.mark.parametrize(("accuracy", "poor"), [(0.54, True), (0.56, False)])
def test_a_poor_feature_network_is_warned_of(accuracy: float, poor: bool) -> None:
    """Ten classes: chance is 0.1, and half-way from there to 1 is 0.55."""
    space = Space(task="classes", answers=10, dimensions=64, accuracy=accuracy, held_out=100)
    assert space.poor is poor
    assert any("Warning" in line for line in space.lines()) is poor


def test_means_of_the_losses() -> None:
    losses = Losses(
        model="weights", pictures=9, log_snr=(1, -1), held_out=(0.1, 0.3), training=(0.1, 0.2)
    )
    assert losses.mean == pytest.approx(0.2)
    assert losses.training_mean == pytest.approx(0.15)


def test_the_floor_in_words() -> None:
    floor = Floor(count=2000, held_out=900, distances=Distances(frechet=0.5, kernel=0.001))
    assert floor.lines() == [
        "Floor, 2,000 training against 900 held-out: Fréchet distance 0.5, kernel distance 0.001."
    ]
