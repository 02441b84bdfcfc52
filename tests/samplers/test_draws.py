"""The noise that each picture meets is its own: to the bit, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.contracts import Corruption
from couette.generate import KeyedNoise
from couette.registry import SAMPLERS
from couette.tensors import Stream, normal
from worlds import Crooked, grid, run, schedule

NOISY = [name for name in SAMPLERS if SAMPLERS.trait(name, "noise")]
SHAPE = (3, 5, 5)
SEED, COUNT = 7, 64


def met(name: str, indices: Tensor) -> tuple[Tensor, Tensor]:
    """(draws, B, C, H, W): the noise that a sampler was given, and the (B, C, H, W) it ends at."""
    s = schedule("vp")
    times, given = grid("karras", s, 8), list[Tensor]()
    keyed = KeyedNoise(SEED, indices, SHAPE, "cpu")

    def noise(t: Tensor, u: Tensor) -> Tensor:
        given.append(keyed(t, u))
        return given[-1]

    x = keyed(times[0], times[0])  # as `generate` starts
    end = run(name, Crooked(Corruption(s)), x, times, noise)[-1].x
    return torch.stack(given), end


@pytest.mark.parametrize("name", NOISY)
def test_every_draw_is_bit_equal_in_any_batch(name: str) -> None:
    """In batches of 64, 3 and 1, and in another order: as many draws, and the same numbers; so
    pictures agree to what sums in another order do to float32."""
    everyone = torch.arange(COUNT)
    whole, ends = met(name, everyone)
    assert len(whole) >= 2
    parts = [*everyone.split(3)[:3], *everyone.split(1)[:3], torch.tensor([63, 5, 17])]
    for indices in parts:
        draws, end = met(name, indices)
        assert torch.equal(draws, whole[:, indices])
        assert torch.allclose(end, ends[indices], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NOISY)
def test_no_two_draws_and_no_two_pictures_are_alike(name: str) -> None:
    """Each draw of each picture is a stream of its own, counted up from the start's."""
    draws, _ = met(name, torch.arange(3))
    assert len(draws.flatten(2).flatten(0, 1).unique(dim=0)) == 3 * len(draws)
    keys = torch.tensor([[2, 0]])
    for count, each in enumerate(draws, start=1):
        assert torch.equal(each[2], normal(SEED, keys, Stream.SAMPLING + count, SHAPE)[0])
