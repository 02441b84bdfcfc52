"""The loop: what it applies, what it refuses, and that it serves any objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from couette.config import TrainingConfig
from couette.contracts import Batch, Losses, Objective
from couette.errors import CheckpointError, ConfigError, Diverged
from couette.training import PowerAverage, Progress, Trainer
from couette.training.plan import Plan
from couette.training.trainer import PATIENCE


class Linear(Objective):
    """Least squares through a batch norm; `spoil` may replace the loss at a call."""

    def __init__(self, spoil: Callable[[int, Tensor], Tensor] = lambda call, loss: loss) -> None:
        super().__init__()
        torch.manual_seed(0)
        # The middle one is wide enough to be Muon's.
        convolutions = nn.Conv2d(2, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 3, 1)
        self.body = nn.Sequential(nn.BatchNorm2d(2), *convolutions, nn.Dropout(0.2))
        self.body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spoil, self.calls, self.told = spoil, 0, list[int]()

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"body": list(self.body.parameters())}

    def forward(self, batch: Batch, phase: str) -> Losses:
        self.calls += 1
        loss = (self.body(batch.data) - 1).square().flatten(1).mean(1)
        return Losses(self.spoil(self.calls, loss), {"level": loss.detach()})

    def updated(self, step: int) -> None:
        self.told.append(step)


def batches(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    keys = torch.stack((torch.arange(4) + 4 * step, torch.zeros(4, dtype=torch.int64)), 1)
    return Batch(torch.randn(4, 2, 5, 5, generator=generator), {}, keys)


def trainer(
    objective: Objective | None = None,
    data: Callable[[int], Batch] = batches,
    average: bool = True,
    **fields: object,
) -> Trainer:
    objective = objective or Linear()
    settings = {"steps": 6, "batch": 4, "lr": 0.05, "warmup": 0, **fields}
    config = TrainingConfig(**settings)  # type: ignore[arg-type]
    kept = PowerAverage(objective.body, 0.1) if average and hasattr(objective, "body") else None
    return Trainer(objective, data, config, Plan(config, 16), kept)  # type: ignore[arg-type]


def snapshot(run: Trainer) -> dict[str, Tensor]:
    files = run.tensors().items()
    return {f"{f}/{n}": v.clone() for f, values in files for n, v in values.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], skip: Iterable[str] = ()) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a if not name.startswith(tuple(skip)))


def test_learns_and_reports() -> None:
    found = list(trainer(Linear(), steps=60).run())
    assert [each.step for each in found] == list(range(1, 61))
    assert found[-1].loss < 0.7 * found[0].loss
    assert found[3].epoch == 1.0
    assert found[2].samples.tolist() == [8, 9, 10, 11]
    assert all(each.applied and each.total == 60 for each in found)
    assert found[0].loss == pytest.approx(float(found[0].logs["level"].mean()))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_comes_back_to_the_bit(optimizer: str) -> None:
    """Weights of convolutions lie channels-last in memory and must do so after loading too."""
    whole = trainer(steps=8, optimizer=optimizer)
    losses = [each.loss for each in whole.run()]
    first = trainer(steps=8, optimizer=optimizer)
    events = first.run()
    begun = [next(events).loss for _ in range(5)]
    files = {  # as safetensors gives them back: in plain order
        file: {n: v.clone(memory_format=torch.contiguous_format) for n, v in values.items()}
        for file, values in first.tensors().items()
    }
    second = trainer(Linear(), steps=8, optimizer=optimizer)
    second.load(files, first.state())
    assert [*begun, *(each.loss for each in second.run())] == losses
    assert same(snapshot(second), snapshot(whole))


@pytest.mark.parametrize(
    "change",
    [
        lambda files, state: files.pop("optimizer"),
        lambda files, state: files.pop("average"),
        lambda files, state: files["optimizer"].update({"body.adamw.99.exp_avg": torch.zeros(1)}),
        lambda files, state: files["optimizer"].update({"body.adamw.0.evil": torch.zeros(2)}),
        lambda files, state: files["optimizer"].update({"body.adamw.0.exp_avg": torch.zeros(9)}),
        lambda files, state: files["optimizer"].update({"body.nonsense": torch.zeros(9)}),
        lambda files, state: files["body"].pop("1.weight"),
        lambda files, state: state.pop("step"),
        lambda files, state: state.update(step="three"),
        lambda files, state: state.update(plan=None),
        lambda files, state: state["plan"].update(total="x"),
    ],
)
def test_states_that_do_not_fit(change: Callable[..., object]) -> None:
    run = trainer()
    next(run.run())
    files, state = {k: dict(v) for k, v in run.tensors().items()}, run.state()
    change(files, state)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        trainer().load(files, state)


def nan_loss(call: int, loss: Tensor) -> Tensor:
    return loss * math.nan if call == 3 else loss


def inf_loss(call: int, loss: Tensor) -> Tensor:
    return loss + math.inf if call == 3 else loss


class Spoilt(torch.autograd.Function):
    """A finite value with a gradient that is not."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * math.nan


def nan_gradient(call: int, loss: Tensor) -> Tensor:
    result: Tensor = Spoilt.apply(loss) if call == 3 else loss
    return result


def nan_data(step: int) -> Batch:
    batch = batches(step)
    if step == 2:
        batch.data[1, 0, 0, 0] = math.nan
    return batch


class NothingRead(TorchDispatchMode):
    """Fails where a number is read out of a tensor: on a card that waits for all before it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_waits_for_nothing(optimizer: str) -> None:
    """Also where updates are refused, which is decided on the device."""
    run = trainer(Linear(nan_loss), optimizer=optimizer, steps=PATIENCE)
    run._looks = PATIENCE  # as on a card
    events = run.run()
    with NothingRead():
        found = [next(events) for _ in range(PATIENCE - 1)]
    assert [bool(each.applied) for each in found] == [True, True, False, *[True] * 6]
    with NothingRead(), pytest.raises(AssertionError, match="read"):
        next(events)


class TestNotFinite:
    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    @pytest.mark.parametrize("clip", [None, 1.0])
    @pytest.mark.parametrize(
        ("spoil", "data"),
        [
            (nan_loss, batches),
            (inf_loss, batches),
            (nan_gradient, batches),
            (lambda call, loss: loss, nan_data),
        ],
        ids=["nan loss", "inf loss", "nan gradient", "nan data"],
    )
    def test_that_update_is_never_applied(
        self,
        spoil: Callable[[int, Tensor], Tensor],
        data: Callable[[int], Batch],
        clip: float,
        optimizer: str,
    ) -> None:
        """Weights, batch statistics, average and moments stay; then the run goes on."""
        objective = Linear(spoil)
        run = trainer(objective, data, clip=clip, optimizer=optimizer)
        events = run.run()
        next(events), next(events)
        before = snapshot(run)
        refused = next(events)
        assert not refused.applied
        assert refused.samples.tolist() == [8, 9, 10, 11]
        assert same(before, snapshot(run))
        assert [each.applied for each in events] == [True] * 3
        assert objective.told == [1, 2, 3, 4, 5, 6]
        assert all(value.isfinite().all() for value in snapshot(run).values())

    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_diverged_after_some_in_a_row(self, clip: float) -> None:
        run = trainer(Linear(lambda call, loss: loss * math.nan), steps=100, clip=clip)
        before, found = snapshot(run), list[Progress]()
        with pytest.raises(Diverged, match=rf"{PATIENCE} times in a row.*samples \[36, 37, 38"):
            found.extend(run.run())
        assert run.step == PATIENCE
        after = snapshot(run)
        moments = {name: after.pop(name) for name in list(after) if name not in before}
        assert same(before, after)
        assert not any(value.any() for value in moments.values())

    def test_a_good_step_between_starts_the_count_anew(self) -> None:
        objective = Linear(lambda call, loss: loss if call % PATIENCE == 0 else loss * math.nan)
        found = list(trainer(objective, steps=3 * PATIENCE).run())
        assert sum(each.applied for each in found) == 3

    def test_the_average_has_no_initial_noise_even_then(self) -> None:
        """The first update that is applied is copied, though the first step was refused."""
        run = trainer(Linear(lambda call, loss: loss if call > 1 else loss * math.nan), steps=2)
        list(run.run())
        files = run.tensors()
        assert all(torch.equal(files["average"][n], files["body"][n]) for n in files["body"])


def test_accumulation_is_the_mean_over_the_batch() -> None:
    """Without batch statistics and dropout, parts and whole have one gradient."""

    class Plain(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 3, 3).double())

        def forward(self, batch: Batch, phase: str) -> Losses:
            return super().forward(batch._replace(data=batch.data.double()), phase)

    norms = []
    for parts in (1, 2, 4):
        objective = Plain()
        torch.manual_seed(1)
        nn.init.normal_(objective.body[0].weight)  # type: ignore[arg-type]
        norms.append(float(next(trainer(objective, accumulate=parts).run()).norm))
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=1e-12)


def test_parts_know_their_places_in_the_run() -> None:
    """Each sample keeps its key and its place, however the batch is parted."""

    class Looking(Linear):
        def forward(self, batch: Batch, phase: str) -> Losses:
            assert batch.places is not None
            seen.append(torch.cat((batch.keys, batch.places[:, None]), 1))
            return super().forward(batch, phase)

    found = []
    for parts in (1, 2, 4):
        seen: list[Tensor] = []
        placed = trainer(
            Looking(), lambda step: batches(step)._replace(places=torch.arange(4) + 4 * step),
            accumulate=parts, steps=2,
        )  # fmt: skip
        list(placed.run())
        found.append(torch.cat(seen))
    assert found[0][:, 2].tolist() == list(range(8))
    assert torch.equal(found[1], found[0]) and torch.equal(found[2], found[0])


def test_coupled_samples_are_never_split() -> None:
    objective = Linear()
    objective.couples = True
    with pytest.raises(ConfigError, match="accumulate 1"):
        trainer(objective, accumulate=2)
    trainer(objective, accumulate=1)


class TwoPhases(Objective):
    """A generator g and a critic c, each moved by its own loss alone."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.c = nn.Linear(1, 1), nn.Linear(1, 1)
        self.order = list[str]()

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"g": list(self.g.parameters()), "c": list(self.c.parameters())}

    def forward(self, batch: Batch, phase: str) -> Losses:
        self.order.append(phase)
        out = self.c(self.g(batch.data[:, :1, 0, 0]))
        loss = out[:, 0] if phase == "g" else (out[:, 0] - 3).square()
        return Losses(loss, {phase: loss.detach()})


def test_two_phases_have_an_optimizer_each() -> None:
    torch.manual_seed(0)
    objective = TwoPhases()
    run = trainer(objective, average=False, steps=3, lr=0.1)
    frozen = [p.clone() for p in objective.c.parameters()]

    real = objective.forward

    def watched(batch: Batch, phase: str) -> Losses:
        if phase == "c" and objective.order == ["g"]:  # g has moved, c has not
            assert all(map(torch.equal, objective.c.parameters(), frozen))
        return real(batch, phase)

    objective.forward = watched  # type: ignore[method-assign]
    found = list(run.run())
    assert objective.order == ["g", "c"] * 3
    assert found[0].logs.keys() == {"g", "c"}
    assert run.tensors().keys() == {"g", "c", "optimizer"}
    assert not all(map(torch.equal, objective.c.parameters(), frozen))

    again = trainer(TwoPhases(), average=False, steps=4, lr=0.1)
    again.load(run.tensors(), run.state())
    assert same(snapshot(again), snapshot(run))
