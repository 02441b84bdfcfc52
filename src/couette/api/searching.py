"""Pictures found by words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from couette.conditioners import Words
from couette.config import RuntimeConfig
from couette.data import open_data, to_float
from couette.errors import InputError
from couette.evaluation.retrieval import embed_pictures, embed_texts, nearest_pictures
from couette.model import load_encoder
from couette.opening import data_of
from couette.runs import RunFolder, find_model
from couette.runtime import choose
from couette.validation import parse


class Found(NamedTuple):
    """Pictures (N, C, H, W) in [-1, 1], nearest first, with their files' names or numbers, their
    captions, and how near each is, a cosine."""

    pictures: torch.Tensor
    names: tuple[str, ...]
    texts: tuple[str, ...]
    near: tuple[float, ...]


def search(
    run: str | Path,
    words: str,
    data: str | Path | None = None,
    *,
    count: int = 16,
    device: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> Found:
    """The pictures that words describe best, by an encoder trained with the recipe `clip`.

    Args:
        run: of the encoder.
        words: what to look for.
        data: a data set's name or a folder; the run's own when not given.
        count: how many pictures.
        device: "auto", "cpu", "cuda" or "mps".
        progress: called with (what is being done, how much is done, of how much).

    Raises:
        InputError: no words, no count, or no data.
        CheckpointError: the run holds no encoder; other CouetteErrors as they fit.
    """
    if not words.strip():
        raise InputError('There are no words to search by; give some, as in "a red circle".')
    if count < 1:
        raise InputError(f"The count of pictures is at least 1, not {count}.")
    own = RunFolder(Path(run)).encoder
    if RunFolder(own).exists():
        raise InputError(f"{run} makes pictures; its encoder searches: couette search {own} …")
    runtime = choose(parse(RuntimeConfig, {"device": device}, "the arguments of search"))
    config, network, tokenizer = load_encoder(find_model(Path(run)), runtime=runtime)
    source = data_of(Path(run), config, data, f"couette search {run} WORDS NEWPATH")
    pictures = open_data(source, progress, others=data is not None).train
    index = torch.arange(len(pictures))
    known = embed_pictures(network, pictures, index, runtime, progress=progress)
    reads = Words(tokenizer, config.text.length)
    reads.read_whole(words)
    query = embed_texts(network, reads, [words], runtime)[0]
    which, near = nearest_pictures(query, known, count)
    names = tuple(pictures.names[i] if pictures.names else str(i) for i in which.tolist())
    texts = tuple(pictures.texts[i] if pictures.texts else "" for i in which.tolist())
    return Found(to_float(pictures.pictures(which)), names, texts, tuple(near.tolist()))
