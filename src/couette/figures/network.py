"""A network's plan."""

from __future__ import annotations

from typing import NamedTuple

from couette.figures.registry import Picture, figure, still
from couette.figures.target import Target
from couette.networks.plan import PlanRow, count_parameters, plan
from couette.render import network_plan


class _Drawn(NamedTuple):
    """A block as the renderer wants it: a vector is one pixel, and what did not run is nothing."""

    name: str
    channels: int
    height: int
    width: int
    parameters: int


@figure("network", needs=("network",))
def network(target: Target) -> list[Picture]:
    """The network's blocks, their channels, sizes and parameters."""
    built, sizes = target.network
    blocks = [_drawn(row) for row in plan(built, sizes)]
    image = network_plan(blocks, title=f"{type(built).__name__} of {target.name}")
    note = (
        f"{count_parameters(built):,} parameters, for {sizes.channels} × {sizes.height} × "
        f"{sizes.width}."
    )
    return [still("network", image, note)]


def _drawn(row: PlanRow) -> _Drawn:
    return _Drawn(
        row.name or row.kind,
        row.channels or 0,
        row.height or 1,
        row.width or 1,
        row.parameters,
    )
