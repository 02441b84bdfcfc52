"""Which samples come when: a function of integers, the same for one process and for many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.codecs import Symmetric
from couette.config import DataConfig
from couette.data import Dataset
from couette.errors import ConfigError
from couette.training import Stream


def stream(
    count: int, batch: int, *, rank: int = 0, world: int = 1, seed: int = 0, **more: object
) -> Stream:
    values = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    labels = torch.arange(count) % 3
    data = Dataset("test", values.contiguous(), labels=labels, classes=("a", "b", "c"))
    config = DataConfig(**more)  # type: ignore[arg-type]
    return Stream(
        data,
        Symmetric(),
        config,
        batch=batch,
        seed=seed,
        labelled=True,
        rank=rank,
        world=world,
    )


@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 2**63 - 1))
def test_every_sample_once_an_epoch(count: int, batch: int, seed: int) -> None:
    """Whatever the batch: also one that spans epochs, or is larger than the data."""
    one = stream(count, batch, seed=seed)
    steps = -(-3 * count // batch)
    keys = torch.cat([one.keys(step) for step in range(steps)])[: 3 * count]
    for epoch in range(3):
        part = keys[epoch * count : (epoch + 1) * count]
        assert part[:, 1].tolist() == [epoch] * count
        assert sorted(part[:, 0].tolist()) == list(range(count))


@given(st.integers(2, 40), st.sampled_from([4, 8, 12]), st.integers(0, 5))
def test_the_order_is_the_same_at_any_world_size(count: int, batch: int, step: int) -> None:
    whole = stream(count, batch).keys(step)
    for world in (2, 4):
        parts = [stream(count, batch, rank=rank, world=world).keys(step) for rank in range(world)]
        assert torch.equal(torch.cat(parts), whole)


def test_batches_are_the_same_at_any_world_size() -> None:
    """Flips and crops included: they belong to the sample, not to its place in the batch."""
    whole = stream(10, 8, flip=True, crop=2)(1)
    assert whole.places is not None and whole.places.tolist() == list(range(8, 16))
    halves = [stream(10, 8, rank=rank, world=2, flip=True, crop=2)(1) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.data for half in halves]), whole.data)
    assert torch.equal(torch.cat([half.cond["label"] for half in halves]), whole.cond["label"])
    places = [half.places for half in halves if half.places is not None]
    assert torch.equal(torch.cat(places), whole.places)


def test_epochs_and_seeds_differ() -> None:
    one = stream(40, 40)
    first, second = one.keys(0)[:, 0], one.keys(1)[:, 0]
    assert not torch.equal(first, second)
    assert not torch.equal(first, stream(40, 40, seed=1).keys(0)[:, 0])
    assert torch.equal(first, stream(40, 40).keys(0)[:, 0])


def test_labels_and_pictures_belong_together() -> None:
    batch = stream(30, 12)(2)
    index = batch.keys[:, 0]
    assert torch.equal(batch.cond["label"], index % 3)
    assert torch.equal(batch.data[:, 0, 0, 0], index.float() / 127.5 - 1)
    assert batch.data.dtype == torch.float32


def test_a_batch_that_can_not_be_parted() -> None:
    with pytest.raises(ConfigError, match="multiple of 3"):
        stream(10, 8, world=3)
