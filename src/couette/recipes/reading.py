"""How a run reads the captions of its data."""

from __future__ import annotations

from pathlib import Path

from couette.conditioners import Words
from couette.config import TextConfig
from couette.data import Dataset
from couette.data.tokenizer import Tokenizer
from couette.errors import DataError, InputError
from couette.model import TOKENIZER
from couette.storage import read_text

LONGEST = 77
"""Tokens of a caption, where no length is asked for: as many as CLIP reads."""


def reading(
    config: TextConfig, data: Dataset, checkpoint: Path | None = None
) -> tuple[Words | None, list[str]]:
    """What a run reads captions with, and what was found in them.

    Args:
        config: whether, and how.
        data: the pictures to train on.
        checkpoint: of the run that goes on, which holds its tokenizer.

    Raises:
        DataError: no captions, or some are missing and that is to be refused.
        InputError: a tokenizer that can't be read.
    """
    if config.encoder == "none":
        return None, []
    texts = data.texts or ()
    without = [i for i, text in enumerate(texts) if not text.strip()]
    if len(without) == len(texts):
        raise DataError(
            f"'{data.name}' has no captions to read; give a folder with metadata.jsonl (file_name, "
            "text) or a .txt file beside each picture, or train without --text.encoder."
        )
    notes = []
    if without:
        names = [data.names[i] if data.names else str(i) for i in without[:3]]
        first = ", ".join(names) + (", …" if len(without) > 3 else "")
        if config.missing == "refuse":
            raise DataError(
                f"{len(without):,} of {len(texts):,} pictures have no caption ({first}); write "
                "them, or train those unconditionally with --text.missing unconditional."
            )
        have = "picture has" if len(without) == 1 else "pictures have"
        notes.append(f"{len(without):,} {have} no caption and teach without one: {first}.")
    if len(set(texts)) == 1:
        notes.append("All captions are the same: a prompt will change nothing.")
    tokenizer = _tokenizer(config, texts, checkpoint)
    length = config.length or min(tokenizer.longest(set(texts)), LONGEST)
    cut = sum(
        tokenizer((text,), length).cut for text in set(texts) if len(text.encode()) > length - 2
    )
    if cut:
        notes.append(
            f"{cut:,} captions are longer than {length} tokens and lose their ends; "
            "--text.length allows more."
        )
    notes.append(f"captions of up to {length} tokens, of {tokenizer.size:,} there are")
    return Words(tokenizer, length), notes


def _tokenizer(config: TextConfig, texts: tuple[str, ...], checkpoint: Path | None) -> Tokenizer:
    """The run's own, the one that is given, or one learned from the captions."""
    if checkpoint is not None:
        return Tokenizer(read_text(checkpoint / TOKENIZER))
    if config.tokenizer is None:
        return Tokenizer.learned(texts, config.vocabulary)
    path = Path(config.tokenizer)
    if not path.is_file():
        raise InputError(f"There is no tokenizer in {path}; give a tokenizer.json.")
    return Tokenizer(read_text(path))
