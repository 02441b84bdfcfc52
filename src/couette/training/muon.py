"""Muon: steps whose singular values are all near one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_ROUNDS = 5
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)

_LONG = 3
"""Columns a row, from which on the rounds are done on the matrix's Gram matrix."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, "Muon"), for the hidden weights of a network.

    m ← μ·m + (1 − μ)·g; the step is lr·√max(1, rows/columns) times the nearest orthogonal matrix
    to the Nesterov average of g and m. A convolution's weight is taken as the matrix of its
    outputs by everything it reads.

    torch.optim.Muon is the same for matrices; it refuses the four-dimensional weights of
    convolutions, of which these networks are made.

    Args:
        params: weights of two or more dimensions.
        lr: the step's size, as spectral norm.
        momentum: μ.
    """

    found_inf: Tensor | None = None
    """As torch's fused optimizers have it: where this is 1, a step changes nothing."""

    def __init__(self, params: Iterable[Any], *, lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; weights of the same shape are orthogonalised together."""
        refused = self.found_inf
        if refused is None:
            refused = torch.zeros((), device=self.param_groups[0]["params"][0].device)
        for group in self.param_groups:
            momentum = group["momentum"]
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for shape, weights in alike.items():
                steps = []
                for p in weights:
                    assert p.grad is not None
                    if "momentum_buffer" not in self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                    buffer = self.state[p]["momentum_buffer"]
                    grad = torch.where(refused > 0, buffer, p.grad)
                    buffer.lerp_(grad, 1 - momentum)
                    steps.append(grad.lerp(buffer, momentum).flatten(1))
                rows, columns = steps[0].shape
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                moves = orthogonal(torch.stack(steps)) * (size * (1 - refused))
                for p, move in zip(weights, moves, strict=True):
                    p.sub_(move.reshape(shape))


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each (N, R, C) matrix.

    Five Newton–Schulz rounds with the quintic of Jordan et al. 2024. Singular values end between
    0.65 and 1.25; those below a 500th of the matrix's norm grow, but may stay smaller. In bfloat16
    on a GPU; processors that lack it take many times as long that way as in float32.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x.mT if tall else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    long = x.shape[-1] >= _LONG * x.shape[-2]
    x = _by_gram(x) if long and x.dtype == torch.float32 else _by_rounds(x)
    found: Tensor = x.mT if tall else x
    return found.to(matrices.dtype)


def _by_rounds(x: Tensor) -> Tensor:
    """x ← (a + b·G + c·G²)·x with G = x·xᵀ, round after round."""
    a, b, c = _POLYNOMIAL
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _by_gram(x: Tensor) -> Tensor:
    """The same in the R columns of G alone: x is read twice, not twice a round.

    The factor P = a + b·G + c·G² commutes with G, so the next G is P·G·P and the product of all
    factors is applied at the end. Squares of small singular values need float32's digits.
    """
    a, b, c = _POLYNOMIAL
    one = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    gram, product = x @ x.mT, one
    for number in range(_ROUNDS):
        factor = a * one + b * gram + c * gram @ gram
        product = factor @ product
        if number < _ROUNDS - 1:
            gram = factor @ gram @ factor
    return product @ x
