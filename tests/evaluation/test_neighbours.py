import pytest
import torch

from couette.data import Dataset, to_float
from couette.errors import ShapeError
from couette.evaluation import neighbours
from couette.evaluation.neighbours import LEAST, calibrate, nearest, reserve


def noise(count: int, seed: int = 0, side: int = 6) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (count, side, side, 1), generator=generator, dtype=torch.uint8)
    return Dataset("noise", values)


def test_nearest_is_what_all_differences_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_CHUNK", 36 * 64)  # several chunks of 64 pictures
    data, asked = noise(300), to_float(noise(20, seed=1).pictures(torch.arange(20)))
    every = torch.cdist(
        asked.flatten(1).double(),
        to_float(data.pictures(torch.arange(300))).flatten(1).double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    found = nearest(asked, data)
    smallest = every.sort(1)
    assert torch.equal(found.which, smallest.indices[:, 0])
    torch.testing.assert_close(found.distance, smallest.values[:, 0])
    assert torch.equal(found.among[:, :4], smallest.indices[:, :4])
    assert torch.equal(found.among.sort(1).values, smallest.indices[:, :50].sort(1).values)
    torch.testing.assert_close(
        found.ratio, smallest.values[:, 0] / smallest.values[:, :50].mean(1), rtol=1e-5, atol=0
    )


def test_a_copy_is_found_at_distance_zero_and_a_near_copy_at_its_own() -> None:
    data = noise(200)
    asked = to_float(data.pictures(torch.tensor([7, 120])))
    asked[1, 0, 3, 3] += 1e-3
    found = nearest(asked, data)
    assert found.which.tolist() == [7, 120]
    assert found.distance.tolist() == pytest.approx([0, 1e-3], rel=1e-3, abs=1e-12)
    assert bool((found.ratio < LEAST).all())


def test_data_of_equal_pictures_have_ratio_zero() -> None:
    data = Dataset("same", torch.zeros(60, 4, 4, 1, dtype=torch.uint8))
    found = nearest(to_float(data.pictures(torch.arange(3))), data)
    assert found.ratio.tolist() == [0, 0, 0]


def test_the_rules_rate_of_false_alarms() -> None:
    """Over many draws of 199 calibrating and one new picture, the new one is accused in 1 %."""
    generator = torch.Generator().manual_seed(0)
    ratios = 0.5 + torch.rand(20_000, 200, generator=generator) / 2
    rule = calibrate(ratios[0, :199].double())
    assert rule.false_alarms == pytest.approx(2 / 200)
    thresholds = torch.tensor([calibrate(row[:199]).threshold for row in ratios[:4000]])
    accused = (ratios[:4000, 199] < thresholds).double().mean()
    assert float(accused) == pytest.approx(0.01, abs=0.005)


def test_with_few_pictures_the_rule_says_how_coarse_it_is() -> None:
    rule = calibrate(torch.tensor([0.9, 0.8, 0.95], dtype=torch.float64))
    assert rule.threshold == 0.8
    assert (rule.false_alarms, rule.made_from) == (pytest.approx(1 / 4), 3)


def test_a_verdict_on_few_pictures_is_said_to_rest_on_little() -> None:
    assert reserve(50, 20) == ""
    assert reserve(49, 20) == "This rests on little: there are only 49 training pictures."
    assert reserve(50, 19).endswith("its rule was made from 19 held-out pictures.")
    assert reserve(18, 1).endswith(
        "18 training pictures, and its rule was made from 1 held-out picture."
    )


def test_repeated_real_pictures_do_not_make_the_rule_blind() -> None:
    ratios = torch.cat((torch.zeros(30), torch.full((69,), 0.9))).double()
    rule = calibrate(ratios)
    assert rule.threshold == LEAST
    assert rule.false_alarms == pytest.approx(31 / 100)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 6, 6\)"):
        nearest(torch.zeros(2, 1, 5, 5), noise(10))
