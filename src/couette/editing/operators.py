"""Linear operators: what is measured of a picture, for inverse problems.

Shapes: B batch, C channels, H height, W width of the picture x; the measurement y has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from couette.editing.filters import gaussian_kernel, spectrum
from couette.editing.registry import OPERATORS
from couette.errors import ShapeError
from couette.tensors import Stream, uniform


class Operator(Protocol):
    """y = A·x. A keeps constants: a picture of one value is measured as that value, but where
    nothing is measured."""

    def apply(self, x: Tensor) -> Tensor:
        """A·x, (B, …)."""
        ...

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ·y, (B, C, H, W)."""
        ...

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        """(a·A·Aᵀ + b)⁻¹·y, for a > 0 and b ≥ 0; its pseudo-inverse where that has no inverse."""
        ...

    def shown(self, y: Tensor) -> Tensor:
        """y as a picture to be looked at, (B, C, H, W)."""
        ...


@OPERATORS.register("average")
class Average:
    """The mean of blocks of factor × factor pixels: a picture at a fraction of its side.

    When to use it: for super-resolution.

    Raises:
        ShapeError: sides that the factor does not divide.
    """

    def __init__(self, shape: tuple[int, int, int], *, factor: Annotated[int, Field(ge=2)] = 2):
        if shape[1] % factor or shape[2] % factor:
            raise ShapeError(
                f"Pictures of {shape[1]}×{shape[2]} have no {factor}th of their side; give a "
                "factor that divides both."
            )
        self.factor = factor

    def apply(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._large(y) / self.factor**2

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return y / (a / self.factor**2 + b)

    def shown(self, y: Tensor) -> Tensor:
        return self._large(y)

    def _large(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)


@OPERATORS.register("gray")
class Gray:
    """The mean of the channels. When to use it: for colouring.

    Raises:
        ShapeError: pictures that are gray already.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if shape[0] < 2:
            raise ShapeError("This model makes gray pictures, so there is nothing to colour.")
        self.channels = shape[0]

    def apply(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.channels, 1) / self.channels

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return y / (a / self.channels + b)

    def shown(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.channels, 1)


class Kept:
    """The pixels where a mask (H, W) is 1; where it is 0 nothing is measured, and y is 0."""

    def __init__(self, keep: Tensor) -> None:
        self.keep = keep

    def apply(self, x: Tensor) -> Tensor:
        return x * self.keep.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.apply(y)

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return self.apply(y) / (a + b)

    def shown(self, y: Tensor) -> Tensor:
        return y


@OPERATORS.register("holes")
class Holes(Kept):
    """Single pixels lost at random, all channels of each.

    When to use it: to see how few will do.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        seed: int = 0,
    ) -> None:
        keys = torch.zeros(1, 2, dtype=torch.int64)
        super().__init__((uniform(seed, keys, Stream.PROBE, shape[1:])[0] >= share).float())


@OPERATORS.register("box")
class Box(Kept):
    """A box in the middle lost, of a share of the picture's side. When to use it: for holes that
    nothing near them tells of."""

    def __init__(
        self, shape: tuple[int, int, int], *, share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    ) -> None:
        keep = torch.ones(shape[1:])
        top, left = (round(side * (1 - share) / 2) for side in shape[1:])
        keep[top : shape[1] - top, left : shape[2] - left] = 0
        super().__init__(keep)


@OPERATORS.register("blur")
class Blur:
    """A Gaussian blur of `sigma` pixels whose edges wrap around: a product in Fourier space.

    Frequencies of which less than `floor` is left are taken for lost. When to use it: for
    deblurring.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        sigma: Annotated[float, Field(gt=0)] = 1.0,
        floor: Annotated[float, Field(gt=0, lt=1)] = 0.05,
    ) -> None:
        line = gaussian_kernel(sigma)
        self.size = shape[1:]
        found = spectrum(line[:, None] * line, torch.zeros(self.size)).real
        self.gain = torch.where(found.abs() < floor, 0, found)

    def apply(self, x: Tensor) -> Tensor:
        return self._filtered(x, self.gain)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, self.gain)

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        power = a * self.gain.square() + b
        return self._filtered(y, torch.where(power > 0, 1 / power.clamp(min=1e-30), 0))

    def shown(self, y: Tensor) -> Tensor:
        return y

    def _filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        found: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gain.to(x), s=self.size)
        return found


class Linear:
    """Any linear function of pictures: its adjoint by the gradient, its inverse by conjugate
    gradients (Hestenes & Stiefel 1952).

    Args:
        function: A, differentiable, linear.
        shape: (C, H, W) of x.
        rounds: of conjugate gradients, at most.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], shape: tuple[int, int, int], rounds: int = 50
    ) -> None:
        self.apply, self.shape, self.rounds = function, shape, rounds

    def adjoint(self, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.shape).requires_grad_()
            (found,) = torch.autograd.grad(self.apply(x), x, y)
        return found

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        found, rest = torch.zeros_like(y), y.clone()
        way, size = rest, _squares(rest)
        start = size.clone()
        for _ in range(self.rounds):
            if bool((size <= 1e-12 * start).all()):
                break
            pushed = a * self.apply(self.adjoint(way)) + b * way
            step = size / _dot(way, pushed).clamp(min=1e-30)
            found, rest = found + step * way, rest - step * pushed
            size, before = _squares(rest), size
            way = rest + size / before.clamp(min=1e-30) * way
        return found

    def shown(self, y: Tensor) -> Tensor:
        return y if y.shape[1:] == self.shape else self.adjoint(y)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _squares(a: Tensor) -> Tensor:
    return _dot(a, a)
