"""The model card that stands in every run's folder."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from couette.config import ModelConfig

if TYPE_CHECKING:
    from couette.recipes.session import Session


_KINDS = {
    "diffusion": (
        "A diffusion model",
        """```
couette sample {run} --count 16
couette eval {run}
```
Samples may repeat training pictures; `couette eval` shows each beside its nearest one.""",
    ),
    "autoencoder": (
        "An autoencoder",
        """```
couette train DATA --codec latent:run={run}
```""",
    ),
    "contrastive": (
        "An encoder of pictures and words",
        """```
couette search {run} "a cat" DATA
couette train DATA --recipe text-to-image --text.encoder clip --text.run {run}
```""",
    ),
    "classifier": (
        "A classifier of noised pictures",
        """```
couette sample MODEL --guider classifier:run={run} --label 0 --guidance 2
couette show MODEL gradients --classifier {run}
```
MODEL is a run with the same data and noise schedule; it needs no labels of its own.""",
    ),
}
"""What a run's product is called, and how it is used."""


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
    kind, use = _KINDS[config.objective.name]
    use = use.format(run=shlex.quote(str(session.folder.path)))
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
{use}
"""
