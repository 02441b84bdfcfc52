"""An encoder of pictures and words."""

from __future__ import annotations

from couette.config import RunConfig, TextConfig, TrainingConfig, spec
from couette.registry import RECIPES


@RECIPES.register("clip")
def clip() -> RunConfig:
    """An encoder of pictures and words, from captioned pictures: for `couette search`; no samples.

    Its text tower can tell a diffusion model what captions say: `--text.encoder clip`.
    """
    return RunConfig(
        recipe="clip",
        objective=spec("contrastive"),
        network=spec("clip"),
        text=TextConfig(encoder="learned"),
        training=TrainingConfig(
            minutes=5,
            batch=256,
            optimizer="muon",
            lr=2e-3,
            warmup=50,
            decay="linear",
            weight_decay=0.05,
            average=0.05,
        ),
    )
