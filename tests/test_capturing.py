"""Recorded steps do what steps do; on a card, and where there is none they are left alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

import small_runs
from couette import api
from couette.config import RuntimeConfig
from couette.errors import ConfigError
from couette.opening import open_model
from couette.runtime import Runtime, choose
from couette.runtime.capturing import WARM, Captured, Recorded, replayed
from small_runs import session

HOW: tuple[Literal["off", "on"], ...] = ("off", "on")

# A recording can only be made on a card: these are run where there is one, the others anywhere.
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def losses(out: Path, steps: int = 12, **settings: Any) -> torch.Tensor:
    """Of the first steps of a run."""
    runtime = {"dtype": "float32", "compile": "off", **settings.pop("runtime", {})}
    run = api.begin(
        settings.pop("source", "digits"),
        out=out,
        recipe=settings.pop("recipe", "default"),
        length={"steps": steps},
        settings={**settings, "runtime": runtime},
    )
    return torch.stack([progress.loss.cpu() for progress in run.trainer.run()])


@card
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"training": {"optimizer": "adamw"}},
        {"training": {"accumulate": 2}},
        {"training": {"average": 0}},
        {"recipe": "berkeley-time"},
        {"recipe": "text-to-pixels", "source": "shapes", "data": {"limit": 200}},
        {"diffusion": {"weighting": "uncertainty"}},
        {"diffusion": {"self_conditioning": True}},
        {"network": {"name": "unet", "dropout": 0.3}},
    ],
    ids=lambda settings: str(settings),
)
def test_a_recorded_run_is_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Replayed kernels are the same kernels; dropout draws from the same generator."""
    plain, graph = (
        losses(tmp_path / how, runtime={"graph": how}, **copy.deepcopy(settings))
        for how in ("off", "on")
    )
    torch.testing.assert_close(graph, plain, rtol=2e-3, atol=2e-3)


@card
def test_a_recorded_run_is_taken_up_again(tmp_path: Path) -> None:
    settings = {"runtime": {"graph": "on", "dtype": "float32"}, "data": {"source": "digits"}}
    whole = small_runs.losses(session(tmp_path / "whole", settings, length={"steps": 12}))
    begun = session(tmp_path / "part", settings, length={"steps": 12})
    small_runs.losses(begun, stop_after=6)
    rest = small_runs.losses(session(tmp_path / "part", {}, resume=True))
    assert set(rest) == set(range(7, 13))
    for step, loss in rest.items():
        assert float.fromhex(loss) == pytest.approx(float.fromhex(whole[step]), rel=2e-3)


@card
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_recorded_step_waits_for_nothing(tmp_path: Path) -> None:
    run = api.begin(
        "digits", out=tmp_path / "run", length={"steps": 20}, settings={"runtime": {"graph": "on"}}
    )
    steps = run.trainer.run()
    for _ in range(5):
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):  # the tenth step looks whether any were refused
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@card
def test_replays_read_what_is_there_now() -> None:
    total = torch.zeros((), device="cuda")
    given = torch.zeros((), device="cuda")

    def add() -> tuple[torch.Tensor, ...]:
        total.add_(given)
        return (total,)

    recorded = Recorded(add)
    found = []
    for number in range(WARM + 4):
        given.fill_(number)
        found.append(recorded()[0])
    assert [int(value) for value in found] == [0, 1, 3, 6, 10, 15]


@card
def test_recorded_pictures_are_the_pictures(tmp_path: Path) -> None:
    """Also where features are used again, and with batches of several sizes."""
    api.train("digits", out=tmp_path / "run", steps=3, runtime={"dtype": "float32"})
    drawn = []
    for how in HOW:
        runtime = choose(RuntimeConfig(graph=how, dtype="float32"))
        model = open_model(tmp_path / "run", runtime=runtime)
        drawn.append(
            [
                api.sample(model, count=count, batch=4, seed=1, **more).cpu()
                for count, more in ((10, {}), (3, {}), (4, {"reuse": 2}), (10, {}))
            ]
        )
    for plain, graph in zip(*drawn, strict=True):
        torch.testing.assert_close(graph, plain, rtol=1e-4, atol=1e-4)


def test_without_a_card_nothing_is_recorded() -> None:
    """What is given on the processor runs as it would without."""
    network = nn.Linear(3, 2)
    plain = network.forward
    Runtime(graph=True).recorded(network)
    x = torch.randn(4, 3)
    torch.testing.assert_close(network(x), plain(x))
    assert isinstance(network.forward, Captured)
    assert network.forward._replays == {}
    double = replayed(lambda value: 2 * value)
    torch.testing.assert_close(double(x), 2 * x)
    torch.testing.assert_close(double(x[:2]), 2 * x[:2])


def test_a_copied_network_runs_its_own_weights() -> None:
    """As the running average's copy does."""
    network = nn.Linear(3, 2)
    Runtime(graph=True).recorded(network)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    assert not other(torch.randn(4, 3)).any()
    assert network(torch.randn(4, 3)).any()


def test_recording_needs_a_card() -> None:
    with pytest.raises(ConfigError, match="CUDA graphs need a CUDA device"):
        choose(RuntimeConfig(graph="on", device="cpu"))
