"""The diffusion objective: every draw a function of (seed, epoch, sample)."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig, spec
from couette.contracts import Batch, Cond
from couette.denoiser import build_denoiser
from couette.schedules import log_snr
from couette.tensors import Stream, normal
from couette.training import DiffusionObjective

CLASSES = 3


class Scaled(nn.Module):
    """Multiplies by one weight; keeps what it was told."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.wants = frozenset({"label"})
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        self.seen.append(cond["label"])
        return self.weight * x


def objective(
    value: float = 0.0, seed: int = 1, **config: Any
) -> tuple[DiffusionObjective, Scaled]:
    fields: dict[str, Any] = {"parameterization": spec("x0"), "times": spec("uniform"), **config}
    settings = DiffusionConfig(**{"schedule": spec("cosine"), **fields})
    network = Scaled(value)
    denoiser = build_denoiser(settings, cast(Any, network))
    return DiffusionObjective(denoiser, settings, {"label": torch.tensor([CLASSES])}, seed), network


def batch(count: int = 8, epoch: int = 0, first: int = 0) -> Batch:
    index = torch.arange(first, first + count)
    data = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(first))
    keys = torch.stack((index, torch.full_like(index, epoch)), 1)
    return Batch(data, {"label": index % CLASSES}, keys)


def part(whole: Batch, rows: slice) -> Batch:
    return Batch(whole.data[rows], {"label": whole.cond["label"][rows]}, whole.keys[rows])


def test_the_error_is_that_of_the_prediction() -> None:
    """A network that says 0 for x0 is wrong by x0 itself, at any level."""
    found, whole = objective()[0], batch()
    losses = found(whole)
    torch.testing.assert_close(losses.logs["error"], whole.data.square().flatten(1).mean(1))
    assert not losses.logs["error"].requires_grad
    assert losses.loss.shape == losses.logs["log_snr"].shape == (8,)


def test_the_noised_picture_is_alpha_x_plus_sigma_eps() -> None:
    """A network that hands x through is wrong by x_t − x0."""
    found, whole = objective(1.0)[0], batch()
    t = torch.full((8,), 0.3, dtype=torch.float64)
    level = found.denoiser.corruption.schedule.level(t)
    eps = normal(1, whole.keys, Stream.NOISE, (1, 4, 4))
    alpha, sigma = (part.float()[:, None, None, None] for part in level)
    wanted = (alpha * whole.data + sigma * eps - whole.data).square().flatten(1).mean(1)
    losses = found.at(whole, t)
    torch.testing.assert_close(losses.logs["error"], wanted)
    torch.testing.assert_close(losses.logs["log_snr"], log_snr(level))


def test_a_sample_draws_the_same_in_any_batch() -> None:
    found, whole = objective(0.7, drop=0.5)[0].train(), batch()
    loss = found(whole).loss
    for rows in (slice(0, 3), slice(3, 8), slice(6, 7)):
        assert torch.equal(found(part(whole, rows)).loss, loss[rows])


@pytest.mark.parametrize("change", ["epoch", "seed"])
def test_epochs_and_seeds_draw_anew(change: str) -> None:
    loss = objective(0.7)[0](batch()).loss
    other = (
        objective(0.7)[0](batch(epoch=1)) if change == "epoch" else objective(0.7, 2)[0](batch())
    )
    assert (other.loss != loss).all()


def test_labels_are_hidden_as_often_as_asked_and_only_in_training() -> None:
    found, network = objective(drop=0.25)
    whole = batch(4000)
    found.train()(whole)
    hidden = network.seen[-1] == CLASSES
    assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(network.seen[-1][~hidden], whole.cond["label"][~hidden])
    found.eval()(whole)
    assert torch.equal(network.seen[-1], whole.cond["label"])
    found, network = objective(drop=0.0)
    found.train()(whole)
    assert torch.equal(network.seen[-1], whole.cond["label"])


def test_uniform_noise_lies_between_0_and_1() -> None:
    """The toy mix: with pictures of zeros and all noise, x_t is the noise itself."""
    found, _ = objective(1.0, schedule=spec("flow"), noise="uniform")
    whole = batch(64)._replace(data=torch.zeros(64, 1, 4, 4))
    error = found.at(whole, torch.ones(64, dtype=torch.float64)).logs["error"]
    assert float(error.mean()) == pytest.approx(1 / 3, abs=0.02)  # E[u²]
