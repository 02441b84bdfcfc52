"""Broadcasting, and randomness as a function of integers.

Noise comes from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
written in tensor operations. A number depends on (seed, key, stream, position) alone, so picture i
of seed s sees the same noise in any batch, on any device, at any world size. The integers are equal
everywhere; the normals made from them agree to the arithmetic's tolerance (1e-6 absolute, float32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Stream(IntEnum):
    """What a draw is for: draws of different streams are independent.

    Samplers count their draws upward from `SAMPLING`.
    """

    NOISE = 0
    TIME = 1
    DROP = 2
    FLIP = 3
    CROP = 4
    ORDER = 5
    OFFSET = 6
    RECALL = 7
    PROBE = 8
    QUANTUM = 9
    POSTERIOR = 10
    IMAGE = 11
    SAMPLING = 1 << 16


def expand(value: Tensor, like: Tensor) -> Tensor:
    """`value`, 0-d or (B,), shaped to broadcast over `like` (B, ...), with its dtype and device."""
    value = sent(value.to(dtype=like.dtype), like.device)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device. To a card they are copied while the processor goes on: a plain copy would
    make it wait there for all that the card still has to do."""
    device = torch.device(device)
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def bits(seed: int, keys: Tensor, stream: int, count: int) -> Tensor:
    """Random 32-bit integers.

    Args:
        seed: any integer; its low 64 bits are used.
        keys: (B, 2) int64, each entry's low 32 bits are used.
        stream: what the draw is for, see `Stream`.
        count: how many per row.

    Returns:
        (B, count) int64 in [0, 2^32).
    """
    blocks = -(-count // 4)
    position = torch.arange(blocks, device=keys.device, dtype=torch.int64)
    rows = keys.shape[0]
    c0 = position.expand(rows, blocks)
    c1 = (keys[:, :1] & _WORD).expand(rows, blocks)
    c2 = (keys[:, 1:2] & _WORD).expand(rows, blocks)
    c3 = torch.full((), stream & _WORD, device=keys.device, dtype=torch.int64).expand(rows, blocks)
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        # The 64-bit products wrap into the sign bit; shift-and-mask still reads the right halves.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _WORD) ^ c1 ^ k0,
            p1 & _WORD,
            ((p0 >> 32) & _WORD) ^ c3 ^ k1,
            p0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), dim=-1).reshape(rows, 4 * blocks)[:, :count]


def uniform(seed: int, keys: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Uniform float32 noise in [0, 1), (B, *shape). Arguments as for `bits`."""
    words = bits(seed, keys, stream, math.prod(shape))
    return ((words >> 8).to(torch.float32) * 2.0**-24).reshape(-1, *shape)


def normal(seed: int, keys: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Standard normal float32 noise, (B, *shape), by Box and Muller. Arguments as for `bits`."""
    count = math.prod(shape)
    half = -(-count // 2)
    words = bits(seed, keys, stream, 2 * half)
    radius = (words[:, :half].to(torch.float32) + 1).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = words[:, half:].to(torch.float32).mul_(2 * math.pi * 2.0**-32)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), 1)[:, :count].reshape(-1, *shape)


def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """A random order of range(count), (count,) int64: the same on every machine."""
    keys = torch.tensor([[count, epoch]], dtype=torch.int64)
    words = bits(seed, keys, Stream.ORDER, 2 * count)[0]
    return torch.argsort((words[:count] << 31) ^ words[count:], stable=True)


def mean_flat(x: Tensor) -> Tensor:
    """The mean over everything but the first axis: (B, ...) to (B,)."""
    return x.flatten(1).mean(1)
