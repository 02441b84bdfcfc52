"""The model card that stands in every run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from couette.config import ModelConfig
from couette.recipes.using import commands

if TYPE_CHECKING:
    from couette.recipes.session import Session


_KINDS = {
    "diffusion": (
        "A diffusion model",
        "Samples may repeat training pictures; `couette eval` shows each beside its nearest one.",
    ),
    "autoencoder": ("An autoencoder", ""),
    "contrastive": ("An encoder of pictures and words", ""),
    "classifier": (
        "A classifier of noised pictures",
        "MODEL is a run with the same data and noise schedule; it needs no labels of its own.",
    ),
}
"""What a run's product is called, and what to know of its use."""


def _words(model: ModelConfig) -> str:
    """A line on another library's encoder, which whoever is handed the model has to have, too."""
    told = model.pretrained
    if told is None:
        return ""
    return (
        f"\n- words told by `{told.source}` (`{told.kind}`, SHA-256 `{told.digest[:16]}`), which "
        "is no part of this folder"
    )


def card(session: Session, step: int) -> str:
    """What the model is, what it was trained on and how to use it, as Markdown."""
    config, model = session.config, session.model_config
    diffusion, training = config.diffusion, config.training
    data = "\n".join(f"- {line}" for line in session.data.train.describe().splitlines())
    length = session.trainer.plan
    labels = ", ".join(model.classes[:20]) + (", …" if len(model.classes) > 20 else "")
    kind, note = _KINDS[config.objective.name]
    use = "\n".join(commands(session))
    return f"""# {session.folder.path.name}

{kind} trained with Couette's recipe `{config.recipe}`, at step {step:,}
({length.epoch(step):.1f} epochs, {length.seconds / 60:.1f} minutes).

## Data
{data}
- fingerprint `{session.data.train.fingerprint[:16]}`

## Model
- network `{config.network}`
- schedule `{diffusion.schedule}`, {diffusion.noise} noise, predicts `{diffusion.parameterization}`
- weighting `{diffusion.weighting}`, times `{diffusion.times}`
- labels: {labels or "none"}{_words(model)}
- batch {training.batch}, learning rate {training.lr:g} ({training.decay}), seed {training.seed}
- {session.runtime.describe()}

## Use
```
{use}
```
{note}
"""
