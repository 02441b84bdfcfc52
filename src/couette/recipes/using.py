"""What to type with what a run has made: for the end of its training, and for its card."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from couette.runs import AUTOENCODER, ENCODER

if TYPE_CHECKING:
    from couette.recipes.session import Session

_USES = {
    "diffusion": ("couette sample {run} {asked}", "couette show {run}", "couette eval {run}"),
    "autoencoder": (
        "couette show {run}",
        "couette eval {run}",
        "couette train DATA --codec latent:run={run}",
    ),
    "contrastive": (
        "couette search {run} {words}",
        "couette eval {run}",
        "couette train DATA --recipe text-to-image --text.encoder clip --text.run {run}",
    ),
    "classifier": (
        "couette sample MODEL --guider classifier:run={run} --label 0 --guidance 2",
        "couette show MODEL gradients --classifier {run}",
    ),
}
"""By a run's objective."""

_STAGES = {
    ENCODER: ("couette search {run} {words}",),
    AUTOENCODER: ("couette show {run}", "couette eval {run}"),
}
"""By the runs that it needed first."""

_LONGEST = 60
"""Characters of an example."""


def commands(session: Session) -> list[str]:
    """What to type with a run, and with those in its folder that it needed first.

    The words in it are a caption of the run's data, so that the model knows them.
    """
    words = shlex.quote(_caption(session.data.train.texts or ()))
    if session.model_config.text.encoder != "none":
        asked = f"--count 16 --prompt {words}"
    else:
        asked = "--count 40 --label each" if session.model_config.classes else "--count 16"
    uses = {session.folder.path: _USES[session.config.objective.name]}
    uses |= {run.path: _STAGES[name] for name, run in session.folder.stages().items()}
    return [
        command.format(run=shlex.quote(str(path)), asked=asked, words=words)
        for path, each in uses.items()
        for command in each
    ]


def _caption(texts: Sequence[str]) -> str:
    """The first caption that says something, or the beginning of it."""
    first = next(filter(str.strip, texts), "")
    return shorten(first, _LONGEST, placeholder="") or first[:_LONGEST]
