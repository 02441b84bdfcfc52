"""What the benchmarks stand on: their clock, their table, their data."""

from __future__ import annotations

import json
import operator
import os
import sys
from functools import partial
from typing import cast

import pytest
import torch

from benchmarks.chart import chart, goals
from benchmarks.latents import autoencoder, runs
from benchmarks.networks import (
    COURSE,
    data_folder,
    diffusers_network,
    forward_flops,
    picture_folder,
    session,
    steps_of,
)
from benchmarks.start_up import spent
from benchmarks.timing import Apart, Case, Goal, interleaved, ratio, report
from couette.config import DataConfig
from couette.data import open_data
from couette.networks.plan import count_parameters
from couette.networks.vae import VAE


def case(name: str, seconds: list[float], work: float = 1.0) -> Case:
    return Case(name, lambda: None, work, seconds=seconds)


def test_a_ratio_is_of_rounds_not_of_medians() -> None:
    """A machine that is three times slower in one round slows both, and the ratio stays."""
    one = case("one", [1.0, 3.0, 1.0])
    other = case("other", [2.0, 6.0, 2.0])
    assert ratio(one, other) == (2.0, 0.0)
    assert ratio(other, one) == (0.5, 0.0)


def test_a_ratio_counts_the_work() -> None:
    assert ratio(case("one", [1.0], work=10), case("other", [1.0], work=5)) == (2.0, 0.0)


def test_cases_take_turns_and_warm_rounds_do_not_count() -> None:
    order: list[str] = []
    cases = [Case(name, lambda name=name: order.append(name)) for name in "ab"]  # type: ignore[misc]
    interleaved(cases, 2, warm=1)
    assert "".join(order) == "ababab"
    assert [len(each.seconds) for each in cases] == [2, 2]


def test_apart_is_another_process_that_goes_on() -> None:
    number = Apart(partial, os.getpid)
    assert number() == number() != os.getpid()
    assert Apart(partial, operator.add, 1)(2) == 3


def test_a_report_ends_in_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    report("speed", [{"case": "a", "per s": 2.0}, {"case": "b", "more": None}], {"threads": 1})
    table, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert table.splitlines()[0].split() == ["case", "per", "s", "more"]
    assert json.loads(line)["rows"][0] == {"case": "a", "per s": 2.0}


def test_the_data_open_as_pictures_with_classes() -> None:
    data = open_data(DataConfig(source=str(data_folder(50))))
    assert (len(data.train), data.train.height, len(data.train.classes)) == (50, 28, 10)
    assert data.test is not None


def test_pictures_past_the_memory_budget_are_trained_on_from_the_disk() -> None:
    small = {"name": "unet", "size": "tiny", "width": 8}
    data, safe = picture_folder(40, 8), {"mode": "safe"}
    run = session(
        data, data={"memory_gb": 1e-6}, network=small, runtime=safe, training={"batch": 4}
    )
    assert steps_of(run)().step == 1


def test_what_is_compared_is_of_equal_work() -> None:
    """The forward passes of train_speed differ by less than five per cent."""
    run = session(
        data_folder(64),
        network={"name": "unet", "size": "base"},
        training={"batch": 4},
        runtime={"mode": "safe"},
    )
    x, told = torch.zeros(1, 1, 28, 28), torch.zeros(1)
    ours = forward_flops(
        run.models["weights"].network, x, told, {"label": torch.zeros(1, dtype=torch.int64)}
    )
    theirs = diffusers_network()
    assert count_parameters(theirs) == 1_707_009
    assert COURSE["block_out_channels"] == (32, 64, 64)
    assert abs(ours / forward_flops(theirs, x, 0) - 1) < 0.05


def test_latents_come_from_where_it_is_said() -> None:
    """One run encodes its batch, another reads what was encoded, and the third's is at hand."""
    data, safe = data_folder(12, 16), {"runtime": {"mode": "safe"}, "training": {"batch": 4}}
    codec = autoencoder(data, network="vae:factor=4,width=8", **safe)
    made = runs(data, codec, network="unet:size=tiny,width=8,patch=1", **safe)
    encoded = list[str]()
    for name, each in made.items():
        network = cast(VAE, each.parts.autoencoder)
        network.encoder.register_forward_hook(lambda *_, name=name: encoded.append(name))
    first = {name: each.trainer.batches(0).data for name, each in made.items()}
    assert encoded == ["encoded"]
    assert first["bare"].shape == (4, 4, 4, 4)
    assert torch.equal(first["bare"], first["cached"])
    torch.testing.assert_close(first["cached"], first["encoded"], rtol=0.01, atol=0.01)
    assert made["bare"].trainer.batches(1).data is first["bare"]
    assert not torch.equal(made["cached"].trainer.batches(1).data, first["cached"])


def test_a_process_is_measured_and_its_failure_told() -> None:
    seconds, memory = spent([sys.executable, "-c", "b = b'x' * 80_000_000; sum(b)"])
    assert 0.1 < seconds < 30
    assert 80 < memory < 150
    with pytest.raises(RuntimeError, match="no such thing"):
        spent([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_goals_are_told_and_charted(capsys: pytest.CaptureFixture[str]) -> None:
    reached = [Goal("one", 2.5, 2), Goal("other", None, 300), Goal("third", 0.5, 4)]
    report("made_up", [{"case": "a"}], {}, reached)
    out = capsys.readouterr().out
    assert "goal: one: 2.5 times, of 2" in out
    assert "goal: other: nothing as good, of 300" in out
    found = goals(out)
    assert [goal["what"] for goal in found] == ["one", "other", "third"]
    assert goals(out.replace('2.5, "wanted', '3.5, "wanted') + out)[0]["reached"] == 2.5
    assert min(chart(found).size) > 100
