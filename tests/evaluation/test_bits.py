"""Bits per dimension of models whose likelihood is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from couette import api
from couette.config import DataConfig, DiffusionConfig, spec
from couette.data import Splits, open_data
from couette.errors import InputError
from couette.evaluation import bits, evaluate
from couette.evaluation.levels import batch_of
from couette.evaluation.report import Bits, Likelihood
from couette.exact import Ideal, named
from couette.model import Model, assemble, exact_model
from couette.tensors import Stream, uniform
from evaluation.small_models import config, untrained


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "_STEPS", 60)


def exactly(model: Model, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """log p of x0 + 0.002·eps at x, in nats."""
    schedule = model.denoiser.corruption.schedule
    t = schedule.time(-2 * torch.tensor(bits.LEAST, dtype=torch.float64).log())
    network = model.network
    assert isinstance(network, Ideal)
    alpha = schedule.level(t).alpha
    return network.world.log_density(alpha * x, t, cond) + x[0].numel() * alpha.log()


def test_points() -> None:
    world = named("exact:gaussians:schedule=flow")
    model, data = exact_model(world), open_data(world.data).test
    assert data is not None
    index = torch.arange(8)
    found = bits.likelihood(model, data, index, name="world", batch=5)
    given = batch_of(model, data, index)
    nats = exactly(model, given.data.double(), dict(given.cond))
    assert found.told and found.points
    assert found.flow.mean == pytest.approx(-float(nats.mean()) / (2 * math.log(2)), rel=0.01)
    parts = found.prior + found.diffusion + found.decoder
    assert found.bound.mean == pytest.approx(parts)
    assert found.bound.mean > found.flow.mean


@pytest.mark.slow
def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact trace, and −log2 of the density at dequantised pictures times a level's width."""
    monkeypatch.setattr(bits, "_SMALL", 64)
    world = named("exact:mixture:rank=0")
    model, data = exact_model(world), open_data(world.data).test
    assert data is not None
    index = torch.arange(3)
    found = bits.likelihood(model, data, index, name="world", seed=4)
    given = batch_of(model, data, index)
    shift = uniform(4, given.keys, Stream.QUANTUM, (1, 8, 8)) - 0.5
    nats = exactly(model, (given.data + 2 / 255 * shift).double(), dict(given.cond))
    expected = -nats / (64 * math.log(2)) - math.log2(2 / 255)
    assert found.flow.mean == pytest.approx(float(expected.mean()), rel=0.01)
    assert found.flow.error == pytest.approx(float(expected.std()) / 3**0.5, rel=0.05)
    assert 0 < found.decoder < 1 and found.prior < 1e-3


def test_a_table_is_walked_through_entry_by_entry_and_not_asked_below_its_first() -> None:
    model = exact_model(named("exact:gaussians:schedule=linear:steps=50"))
    assert len(bits._times(model)) == 51
    schedule = model.denoiser.corruption.schedule
    level = schedule.level(torch.tensor(0.02, dtype=torch.float64))
    assert bits._least(model) == pytest.approx(float(level.sigma / level.alpha))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return open_data(DataConfig(source="digits", resolution=8, limit=300))


def test_it_is_a_part_of_the_report_where_it_is_asked_for(
    digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bits, "_ODE_STEPS", 2)
    models = {"weights": untrained(digits.train)}
    parts: list[object] = []
    report = evaluate(models, digits, count=4, likelihood=True, watch=parts.append)
    assert [type(part).__name__ for part in parts][3:] == ["Losses", "Likelihood", "Samples"]
    assert report.likelihoods["weights"].pictures == len(digits.test or ())
    assert report.json()["likelihoods"]["weights"]["bound"]["mean"] > 0  # type: ignore[index]
    assert evaluate(models, digits, count=4).likelihoods == {}


def test_what_makes_nothing_from_normal_noise_is_refused_first(digits: Splits) -> None:
    toy = DiffusionConfig(schedule=spec("flow"), noise="uniform", parameterization=spec("x0"))
    once = DiffusionConfig(times=spec("fixed"))
    for diffusion in (toy, once):
        network = untrained(digits.train).network
        model = assemble(config(digits.train, diffusion), network)
        with pytest.raises(InputError, match="leave out --likelihood"):
            evaluate({"weights": model}, digits, count=4, likelihood=True)


def test_an_exact_world_is_evaluated_like_a_run(tmp_path: Path) -> None:
    """The memoriser's samples are copies, each of the class asked for."""
    world = "exact:digits:resolution=8,limit=300"
    report, paths = api.evaluate(world, count=20, out=tmp_path)
    found = report.samples["weights"]
    assert found.copies is not None and found.copies.share > 0.9
    assert paths[0] == tmp_path / "report.json"
    assert report.notes == ()


def test_lines() -> None:
    found = Likelihood(
        model="average",
        pictures=1200,
        told=True,
        flow=Bits(mean=3.2104, error=0.0512),
        bound=Bits(mean=3.5),
        prior=0.001,
        diffusion=2.999,
        decoder=0.5,
        steps=1000,
    )
    assert found.lines() == [
        "Likelihood under the average of 1,200 held-out pictures, told their classes: "
        "3.210 ± 0.051 bits per dimension by the ODE.",
        "  variational bound: 3.500 (prior 0.001, 1,000 steps 2.999, decoder 0.500).",
    ]
