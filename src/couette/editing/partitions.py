"""Partitions of a picture: linear parts that sum to it, which a hybrid is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from couette.editing.filters import convolved, gaussian, motion_kernel
from couette.editing.masks import from_file
from couette.editing.registry import PARTITIONS, Share
from couette.errors import InputError

Above = Annotated[float, Field(gt=0)]


class Part(NamedTuple):
    """A linear map of (B, C, H, W), and its name."""

    name: str
    take: Callable[[Tensor], Tensor]


def whole(parts: tuple[Part, ...], shape: tuple[int, ...]) -> float:
    """How far the parts of a random picture are from summing to it, or a part from being linear:
    the largest error, for pictures of unit variance."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    gaps = [torch.stack([part.take(a) for part in parts]).sum(0) - a]
    gaps += [part.take(a - 2 * b) - part.take(a) + 2 * part.take(b) for part in parts]
    return max(float(gap.abs().max()) for gap in gaps)


def _rest(name: str, take: Callable[[Tensor], Tensor]) -> Part:
    return Part(name, lambda x: x - take(x))


@PARTITIONS.register("frequency")
def frequency(shape: tuple[int, int, int], *, sigma: Above = 2.0) -> tuple[Part, ...]:
    """Low and high frequencies: blurred by a Gaussian of `sigma` pixels, and what that takes away.

    The classical hybrid: the first is seen from far, the second from near (Oliva et al. 2006). When
    to use it: first.
    """

    def low(x: Tensor) -> Tensor:
        return gaussian(x, sigma)

    return Part("low", low), _rest("high", low)


@PARTITIONS.register("bands")
def bands(
    shape: tuple[int, int, int], *, coarse: Above = 3.0, fine: Above = 1.0
) -> tuple[Part, ...]:
    """Three bands of frequencies: seen from far, from half way, from near.

    When to use it: on large pictures, for three things in one.

    Raises:
        InputError: a coarse blur that is not wider than the fine one.
    """
    if coarse <= fine:
        raise InputError(f"The coarse blur, {coarse:g}, must be wider than the fine one, {fine:g}.")

    def low(x: Tensor) -> Tensor:
        return gaussian(x, coarse)

    def near(x: Tensor) -> Tensor:
        return gaussian(x, fine)

    return Part("low", low), Part("middle", lambda x: near(x) - low(x)), _rest("high", near)


@PARTITIONS.register("color")
def color(shape: tuple[int, int, int]) -> tuple[Part, ...]:
    """Gray, the mean of the channels, and colour, what is left.

    When to use it: for a picture that shows another thing in black and white.

    Raises:
        InputError: pictures without colour.
    """
    if shape[0] < 3:
        raise InputError("Gray pictures have no colour to part; use another partition.")

    def gray(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)

    return Part("gray", gray), _rest("color", gray)


@PARTITIONS.register("motion")
def motion(
    shape: tuple[int, int, int], *, length: Above = 7.0, degrees: float = 0.0
) -> tuple[Part, ...]:
    """What is seen when the picture moves along a line of `length` pixels, and what is lost by it.

    Geng et al. 2025 (Factorized diffusion), sec. 3.3. Edges wrap around. When to use it: for what
    is seen only when it moves.
    """
    kernel = motion_kernel(length, degrees)

    def moved(x: Tensor) -> Tensor:
        return convolved(x, kernel)

    return Part("moving", moved), _rest("still", moved)


@PARTITIONS.register("sides")
def sides(shape: tuple[int, int, int], *, soft: Share = 0.0) -> tuple[Part, ...]:
    """The left and the right half; `soft` is the share of the width over which they blend.

    When to use it: for two things beside each other.
    """
    x = (torch.arange(shape[2], dtype=torch.float64) + 0.5) / shape[2]
    left = ((0.5 - x) / max(soft, 1e-9) + 0.5).clamp(0, 1)
    return _masked(left.expand(shape[1], shape[2]), "left", "right")


@PARTITIONS.register("mask")
def mask(shape: tuple[int, int, int], *, file: str) -> tuple[Part, ...]:
    """Where a mask is white, and where it is black; gray blends.

    When to use it: to put things where they are wanted.

    Raises:
        DataError: a file that is no picture.
    """
    return _masked(from_file(file, shape[1], shape[2])[0, 0].double(), "white", "black")


def _masked(weight: Tensor, first: str, second: str) -> tuple[Part, ...]:
    def inside(x: Tensor) -> Tensor:
        return x * weight.to(x)

    return Part(first, inside), _rest(second, inside)
