from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.data import augment


def keys(count: int, epoch: int = 0) -> Tensor:
    return torch.stack((torch.arange(count), torch.full((count,), epoch)), 1)


def batch(count: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 9, 7), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_row_is_the_same_alone_and_in_a_batch(dtype: torch.dtype) -> None:
    pictures = batch(64).to(dtype)
    whole = augment(pictures, flip=True, crop=2, seed=5, keys=keys(64))
    for row in range(64):
        alone = augment(
            pictures[row : row + 1], flip=True, crop=2, seed=5, keys=keys(64)[row : row + 1]
        )
        assert torch.equal(alone[0], whole[row])


def test_every_row_is_a_mirroring_and_shift_of_its_picture_with_repeated_edges() -> None:
    pictures = batch(200, 1)
    got = augment(pictures, flip=True, crop=1, seed=0, keys=keys(200))
    padded = torch.nn.functional.pad(pictures.float(), (1, 1, 1, 1), mode="replicate").byte()
    seen = set()
    for row in range(200):
        for down in range(3):
            for right in range(3):
                cut = padded[row, :, down : down + 9, right : right + 7]
                for mirrored, choice in ((False, cut), (True, cut.flip(-1))):
                    if torch.equal(got[row], choice):
                        seen.add((row, down, right, mirrored))
    assert len({row for row, *_ in seen}) == 200
    assert len({tuple(choice) for _, *choice in seen}) == 18


def test_flips_are_fair_and_change_with_the_epoch_and_the_seed() -> None:
    ramp = torch.arange(7).expand(4000, 1, 9, 7).to(torch.uint8)

    def flipped(seed: int, epoch: int) -> Tensor:
        got = augment(ramp, flip=True, crop=0, seed=seed, keys=keys(4000, epoch))
        return got[:, 0, 0, 0] == 6

    first = flipped(0, 0)
    assert abs(first.float().mean().item() - 0.5) < 0.04
    for other in (flipped(0, 1), flipped(1, 0)):
        assert abs((first == other).float().mean().item() - 0.5) < 0.04


def test_nothing_asked_is_nothing_done_and_strides_are_channels_last() -> None:
    pictures = batch(4)
    assert augment(pictures, flip=False, crop=0, seed=0, keys=keys(4)) is pictures
    got = augment(pictures, flip=True, crop=0, seed=0, keys=keys(4))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_shift_larger_than_the_picture_shows_its_edge() -> None:
    got = augment(batch(50), flip=False, crop=64, seed=0, keys=keys(50))
    assert got.shape == (50, 3, 9, 7)
