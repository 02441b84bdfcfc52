"""Any network, told its own last prediction beside x: self-conditioning's half in the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.networks.common import refuse_unknown


class Recalling(nn.Module):
    """A network that reads x0, its last prediction, as further channels of x (Chen et al. 2023).

    Args:
        build: makes the network for given sizes.
        sizes: the pictures; the network within is built for twice the channels.
    """

    def __init__(self, build: Callable[[Sizes], nn.Module], sizes: Sizes) -> None:
        super().__init__()
        inner: Any = build(sizes._replace(channels=2 * sizes.channels, out=sizes.outputs))
        inner.nested = True  # a plan looks inside
        self.network: nn.Module = inner
        self.wants: frozenset[str] = inner.wants | {"x0"}

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to (B, outputs, H, W).

        Args:
            told: as the network within has it.
            cond: as the network within has it, and "x0" (B, C, H, W); zeros where it is left out.

        Raises:
            ConfigError: a key of `cond` that is not in `wants`.
        """
        refuse_unknown(cond, self.wants)
        rest = dict(cond)
        recalled = rest.pop("x0", torch.zeros_like(x)).to(x)
        result: Tensor = self.network(torch.cat((x, recalled), 1), told, rest)
        return result

    def read_once(self, cond: Cond) -> Cond:
        """As the network within has it."""
        inner = getattr(self.network, "read_once", None)
        found: Cond = {} if inner is None else inner(cond)
        return found
