from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from couette.tensors import Stream, bits, expand, mean_flat, normal, permutation, uniform


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, ...]:
    """Philox4x32-10 with Python's integers, as Salmon et al. 2011 write it (sec. 3.3)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [
            (p1 >> 32) ^ c[1] ^ k[0],
            p1 & 0xFFFFFFFF,
            (p0 >> 32) ^ c[3] ^ k[1],
            p0 & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return tuple(c)


ONES = 0xFFFFFFFF
KNOWN = [  # Random123's kat_vectors for philox4x32-10: counter, key, output
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES,) * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_the_reference_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], output: str
) -> None:
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == output


def test_zero_counter_and_key_give_the_known_answer() -> None:
    words = bits(0, torch.zeros(1, 2, dtype=torch.int64), 0, 4)
    assert [f"{word:08x}" for word in words[0].tolist()] == KNOWN[0][2].split()


word = st.integers(0, ONES)


@given(st.integers(0, 2**64 - 1), word, word, word, st.integers(1, 9))
def test_bits_are_philox(seed: int, first: int, second: int, stream: int, count: int) -> None:
    """Word 4k + j is word j of the block whose counter is (k, key, key, stream)."""
    got = bits(seed, torch.tensor([[first, second]]), stream, count)[0].tolist()
    key = (seed & ONES, seed >> 32)
    blocks = [philox((k, first, second, stream), key) for k in range(3)]
    assert got == [each for block in blocks for each in block][:count]


def keys(count: int, first: int = 0) -> torch.Tensor:
    index = torch.arange(first, first + count)
    return torch.stack((index, torch.full_like(index, 7)), 1)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("draw", [normal, uniform])
def test_rows_do_not_depend_on_the_batch(batch: int, draw: Callable[..., torch.Tensor]) -> None:
    whole = draw(5, keys(64), Stream.NOISE, (3, 5, 5))
    parts = [
        draw(5, keys(min(batch, 64 - first), first), Stream.NOISE, (3, 5, 5))
        for first in range(0, 64, batch)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_a_longer_row_begins_like_a_shorter_one() -> None:
    assert torch.equal(bits(3, keys(2), 0, 5), bits(3, keys(2), 0, 64)[:, :5])


@pytest.mark.parametrize(
    "other",
    [
        normal(2, keys(1), Stream.NOISE, (4096,)),
        normal(1, keys(1, 1), Stream.NOISE, (4096,)),
        normal(1, keys(1) + torch.tensor([0, 1]), Stream.NOISE, (4096,)),
        normal(1, keys(1), Stream.TIME, (4096,)),
        normal(1 + 2**32, keys(1), Stream.NOISE, (4096,)),
    ],
    ids=["seed", "first key", "second key", "stream", "high half of the seed"],
)
def test_every_integer_matters(other: torch.Tensor) -> None:
    """Correlation of independent draws is N(0, 1/4096): beyond 5/64 once in 1.7 million runs."""
    mine = normal(1, keys(1), Stream.NOISE, (4096,))
    assert abs(float((mine * other).mean())) < 5 / 64


def test_normals_are_normal() -> None:
    """The draws are fixed, so this can't fail by chance; a correct generator with another seed
    would fail it once in a thousand (Kolmogorov–Smirnov), less often by the moments."""
    x = normal(0, keys(50), Stream.NOISE, (4001,)).double().flatten()
    count = x.numel()
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3
    assert abs(float(x.mean())) < 4 / math.sqrt(count)
    assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float(x.pow(3).mean())) < 4 * math.sqrt(15 / count)
    assert abs(float(x.pow(4).mean()) - 3) < 4 * math.sqrt(96 / count)
    assert bool(x.isfinite().all())


def test_normals_are_box_and_muller_of_the_bits() -> None:
    words = bits(9, keys(2), Stream.NOISE, 6).double()
    radius = (-2 * ((words[:, :3] + 1) / 2**32).log()).sqrt()
    angle = 2 * math.pi * words[:, 3:] / 2**32
    expected = torch.cat((radius * angle.cos(), radius * angle.sin()), 1)
    got = normal(9, keys(2), Stream.NOISE, (6,)).double()
    assert torch.allclose(got, expected, rtol=0, atol=2e-6)


def test_uniforms_are_uniform_below_one() -> None:
    x = uniform(0, keys(50), Stream.NOISE, (4001,))
    assert x.dtype == torch.float32
    assert float(x.min()) >= 0 and float(x.max()) < 1
    assert stats.kstest(x.double().flatten().numpy(), "uniform").pvalue > 1e-3


def test_scalar_shape() -> None:
    assert uniform(0, keys(5), Stream.TIME).shape == (5,)
    assert normal(0, keys(5), Stream.TIME).shape == (5,)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(1, 400))
def test_permutation_is_one(seed: int, epoch: int, count: int) -> None:
    assert permutation(seed, epoch, count).sort().values.tolist() == list(range(count))


def test_permutations_differ() -> None:
    orders = [permutation(0, 0, 100), permutation(0, 1, 100), permutation(1, 0, 100)]
    # Two random orders agree in one place on average; ten has a probability below 1e-7.
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert int((one == other).sum()) < 10


def test_permutation_has_no_favourites() -> None:
    """Where item 0 lands in 2,000 epochs, over 10 places: chi-squared with 9 degrees."""
    places = [permutation(4, epoch, 10).tolist().index(0) for epoch in range(2000)]
    counts = torch.bincount(torch.tensor(places), minlength=10).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_expand() -> None:
    like = torch.zeros(2, 3, 4, 4)
    assert expand(torch.tensor(2.0, dtype=torch.float64), like).shape == ()
    rows = expand(torch.tensor([1.0, 2.0], dtype=torch.float64), like)
    assert rows.shape == (2, 1, 1, 1) and rows.dtype == torch.float32
    assert rows.flatten().tolist() == [1.0, 2.0]


def test_mean_flat() -> None:
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert mean_flat(x).tolist() == [2.5, 8.5]
