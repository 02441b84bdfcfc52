"""A network's plan: its blocks in the order they run, with what comes out and what they weigh.

Draws nothing; a renderer does that. Works on any network by running it once on zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.runtime import evaluating


class PlanRow(NamedTuple):
    """One row of a plan.

    name: where the block is in the network ("down_blocks.0"). kind: its class.
    channels, height, width: of what came out of it last; height and width are None for a
        vector (an embedding), all three where it did not run.
    parameters: how many numbers it learns; those shared with an earlier row count there.
    """

    name: str
    kind: str
    channels: int | None
    height: int | None
    width: int | None
    parameters: int


def count_parameters(network: nn.Module) -> int:
    """How many numbers the network learns; shared ones count once."""
    return sum(p.numel() for p in network.parameters())


def plan(network: nn.Module, sizes: Sizes) -> list[PlanRow]:
    """The network's blocks in the order in which they first run, then those that did not.

    A block is a direct child of the network; containers (ModuleList, ModuleDict, and modules whose
    attribute `nested` is true) are opened. The parameters of all rows add up to
    `count_parameters`. The network is left as it was found.

    Args:
        network: any network, on any device.
        sizes: what it was built for.
    """
    blocks = dict(_blocks(network))
    shapes: dict[str, torch.Size] = {}
    handles = [
        block.register_forward_hook(partial(_record, shapes, name))
        for name, block in blocks.items()
    ]
    try:
        with evaluating(network), torch.no_grad():
            network(*_zeros(network, sizes))
    finally:
        for handle in handles:
            handle.remove()
    return _rows(network, blocks, shapes)


def _blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        opened = isinstance(child, nn.ModuleList | nn.ModuleDict) or getattr(child, "nested", False)
        if opened:
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _record(
    shapes: dict[str, torch.Size], name: str, _module: nn.Module, _given: Any, out: Any
) -> None:
    """A forward hook: keep the shape of the last tensor that came out."""
    while isinstance(out, list | tuple) and out:
        out = out[-1]
    if isinstance(out, Tensor):
        shapes[name] = out.shape


def _zeros(network: nn.Module, sizes: Sizes) -> tuple[Tensor, Tensor, Cond]:
    """One picture of zeros at time zero, of no class and no words, where the weights are."""
    like = next(network.parameters())
    x = torch.zeros(1, sizes.channels, sizes.height, sizes.width, device=like.device)
    wanted: frozenset[str] = getattr(network, "wants", frozenset())
    none = torch.full((1,), sizes.classes, device=like.device)
    cond: dict[str, Tensor] = {"label": none} if "label" in wanted else {}
    if "text" in wanted and sizes.text is not None:
        words, length = sizes.text, sizes.text.length
        shape = (1, length) if words.vocabulary else (1, length, words.width)
        kind = torch.int64 if words.vocabulary else like.dtype
        cond["text"] = torch.zeros(shape, dtype=kind, device=like.device)
        cond["text_mask"] = torch.ones(1, length, dtype=torch.bool, device=like.device)
    return x.to(like.dtype), torch.zeros(1, device=like.device), cond


def _rows(
    network: nn.Module, blocks: dict[str, nn.Module], shapes: dict[str, torch.Size]
) -> list[PlanRow]:
    counted: set[nn.Parameter] = set()
    rows = []
    for name in [*shapes, *(name for name in blocks if name not in shapes)]:
        own = set(blocks[name].parameters()) - counted
        counted |= own
        channels, height, width = _extent(shapes.get(name))
        count = sum(p.numel() for p in own)
        rows.append(PlanRow(name, type(blocks[name]).__name__, channels, height, width, count))
    loose = set(network.parameters()) - counted
    if loose:
        count = sum(p.numel() for p in loose)
        rows.append(PlanRow("", type(network).__name__, None, None, None, count))
    return rows


def _extent(shape: torch.Size | None) -> tuple[int | None, int | None, int | None]:
    if shape is None or len(shape) < 2:
        return None, None, None
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    return shape[-1], None, None
