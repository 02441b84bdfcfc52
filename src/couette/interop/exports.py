"""What an export in another program's format is made of, and the card that goes with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from couette.config import ModelConfig


class Export(NamedTuple):
    """A folder to be written.

    files: by name, which may lead into folders inside. weights: the safetensors files among them,
    by name, in float32. notes: what the user should know of it, in sentences.
    """

    files: Mapping[str, bytes]
    weights: Mapping[str, Mapping[str, Tensor]]
    notes: tuple[str, ...]


def card_for(card: str | None, config: ModelConfig, use: str, front: str = "") -> bytes:
    """The run's card with another section on its use.

    Args:
        card: the run's; None makes a short one from what the model knows of itself.
        config: the model.
        use: the section, without its title.
        front: YAML that hubs read off the head of a card.
    """
    if card is None:
        card = (
            f"# A model of {config.data or config.recipe}\n\nA diffusion model trained with "
            f"Couette's recipe `{config.recipe}`, at step {config.step:,}.\n"
        )
    section = f"\n## Use\n{use}\n"
    found = re.search(r"\n## Use\n.*?(?=\n## |\Z)", card, re.DOTALL)
    if found is None:
        card = card.rstrip("\n") + "\n" + section
    else:
        card = card[: found.start()] + section + card[found.end() :]
    head = f"---\n{front}---\n\n" if front else ""
    return (head + card).encode()
