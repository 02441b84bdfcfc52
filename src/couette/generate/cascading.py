"""A cascade: what one model draws, enlarged by another that was trained to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.errors import InputError
from couette.generate.drawing import finished, steps
from couette.generate.settings import together
from couette.interop import enlarging
from couette.model import Model

_SECOND = 1 << 63
"""Set in the second stage's seed, so that its noise is not the first stage's again."""


def cascade(
    first: Model,
    second: Model,
    asked: Sequence[Ask],
    *,
    seed: int = 0,
    index: int = 0,
    batch: int = 64,
    noise: float = 0.251,
    sampling: tuple[SamplingConfig | None, SamplingConfig | None] = (None, None),
) -> Iterator[Tensor]:
    """Draw with the first model, and enlarge with the second (Ho et al. 2021, "cascaded
    diffusion"), batch by batch. Both are asked for the same words.

    Args:
        first, second: such as DeepFloyd IF's stages I and II.
        asked: what each picture is asked to show.
        seed: picture i of a seed is the same in any batch.
        index: of the first picture.
        batch: how many are drawn at once.
        noise: the time to which the small pictures are noised before they are enlarged.
        sampling: how each model draws; its own way where None.

    Yields:
        (B, C, H, W) float32 in [-1, 1] on the CPU.

    Raises:
        InputError: nothing asked for, a second model that enlarges nothing, or as `steps`.
    """
    if not asked or batch < 1:
        raise InputError(f"{len(asked)} pictures in batches of {batch}: both must be at least 1.")
    used = [
        own or model.config.sampling for own, model in zip(sampling, (first, second), strict=True)
    ]
    batch = min(together(each, batch) for each in used)
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        run = steps(first, part, seed=seed, first=index + start, sampling=used[0])
        small = finished(first, deque(run, maxlen=1).pop().x)
        told = enlarging(second, small, part, seed=seed, first=index + start, noise=noise)
        run = steps(second, told, seed=seed | _SECOND, first=index + start, sampling=used[1])
        yield finished(second, deque(run, maxlen=1).pop().x)
