"""Methods of guidance laid over one another, in the order they are named."""

from __future__ import annotations

from collections.abc import Sequence

from couette.config import Spec
from couette.contracts import Denoise
from couette.guidance.contrast import Terms
from couette.registry import GUIDANCE


def guide(denoise: Denoise, terms: Terms, guiders: Sequence[Spec]) -> Denoise:
    """A denoiser under all `guiders`, the first nearest to it. What it returns serves one run.

    Raises:
        UnknownName, ConfigError: a method or a setting that does not exist.
        InputError: a method that the denoiser or the scale does not fit.
    """
    for each in guiders:
        denoise = GUIDANCE.build(each, denoise, terms)
    return denoise
