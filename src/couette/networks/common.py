"""What every network does before it works: refuse what it can't take, read what it is told.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError, ShapeError, nearest


def refuse_unknown(cond: Cond, wants: Set[str]) -> None:
    """Refuse conditioning that the network would otherwise ignore in silence.

    Raises:
        ConfigError: a key of `cond` is not in `wants`.
    """
    if cond.keys() <= wants:
        return
    key = min(cond.keys() - wants)
    near = nearest(key, wants)
    hint = f"did you mean '{near}'?" if near else "leave it out, or choose another network."
    known = ", ".join(sorted(wants)) or "nothing but the time"
    raise ConfigError(f"This network is told {known} and can't be told '{key}'; {hint}")


def require_multiple(sizes: Sizes, multiple: int, network: str) -> None:
    """Refuse pictures whose sides a network can't halve and double back.

    Raises:
        ShapeError: height or width is not a positive multiple; the nearest size is named.
    """
    sides = sizes.height, sizes.width
    if all(side > 0 and side % multiple == 0 for side in sides):
        return
    fits = "×".join(str(max(1, round(side / multiple)) * multiple) for side in sides)
    raise ShapeError(
        f"The network '{network}' can't take pictures of {sizes.height}×{sizes.width}: both sides "
        f"must be multiples of {multiple}. {fits} would do."
    )


def unmixed(mixed: Tensor, value: Tensor, perturb: Tensor | None) -> Tensor:
    """What attention gives, (B, …): in the rows of `perturb` (B,) bool each token keeps its own
    value, as if every map of attention were the identity (Ahn et al. 2024)."""
    if perturb is None:
        return mixed
    return torch.where(perturb.reshape(-1, *[1] * (mixed.ndim - 1)), value, mixed)


def label(cond: Cond) -> Tensor:
    """The class of each row, (B,) int64, from conditioning that must hold it.

    Raises:
        ConfigError: there is no "label".
    """
    given = cond.get("label")
    if given is None:
        raise ConfigError(
            "This network has classes and was told no 'label'; give one per picture, and the "
            'number of classes itself for "none".'
        )
    return given
