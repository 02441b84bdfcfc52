"""How a run reads the captions of its data."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import torch

from couette import interop
from couette.conditioners import Tokenizes
from couette.config import PretrainedConfig, ReaderConfig, RunConfig, TextConfig
from couette.data import Dataset
from couette.data.hub import reads_as_hub_name
from couette.data.tokenizer import Tokenizer
from couette.errors import CheckpointError, ConfigError, DataError, InputError
from couette.model import TOKENIZER, load_encoder, load_parts, read_config
from couette.networks.text import WordEncoder
from couette.runs import find_model, needed_run
from couette.runtime import Runtime
from couette.storage import read_text, tensor_bytes

LONGEST = 77
"""Tokens of a caption, where no length is asked for: as many as CLIP reads."""


_AT_ONCE = 1024


class Read(NamedTuple):
    """What a run reads captions with, and what was found in them.

    tokenizer, length: None and 0 for a run that reads none. reader: the encoder that the network is
    told the words by. described, pretrained: what that is as data, if it is of Couette, or if it is
    of another library.
    """

    tokenizer: Tokenizes | None = None
    length: int = 0
    reader: WordEncoder | None = None
    described: ReaderConfig | None = None
    pretrained: PretrainedConfig | None = None
    notes: tuple[str, ...] = ()


def reading(config: TextConfig, data: Dataset, own: Path, checkpoint: Path | None = None) -> Read:
    """How a run reads the captions of its data.

    Args:
        config: whether, and how.
        data: the pictures to train on.
        own: where the encoder's run lies, unless another is named.
        checkpoint: of the run that goes on, which holds its tokenizer.

    Raises:
        DataError: no captions, or some are missing and that is to be refused.
        InputError: a tokenizer or an encoder that can't be read, or no encoder where one is asked
            for.
    """
    if config.encoder == "none":
        return Read()
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
    tokenizer: Tokenizes
    reader: WordEncoder | None = None
    described = pretrained = None
    most = math.inf
    if config.encoder == "clip":
        tokenizer, length, reader, described = _encoder(config, own, checkpoint)
    elif config.encoder == "pretrained":
        found = _pretrained(config, checkpoint)
        tokenizer, reader, pretrained = found.tokenizer, found.encoder, found.described
        most = found.longest
        length = config.length or min(tokenizer.longest(set(texts)), LONGEST, most)
        if length > most:
            raise ConfigError(
                f"{config.run} reads captions of up to {most} tokens, not {length}; give "
                "a smaller --text.length."
            )
        notes.append(
            f"words are told by {pretrained.source} ({pretrained.kind}, {pretrained.width} "
            "features a token), which is not trained"
        )
    else:
        tokenizer = _tokenizer(config, texts, checkpoint)
        length = config.length or min(tokenizer.longest(set(texts)), LONGEST)
    long = [text for text in set(texts) if len(text.encode()) > length - 2]
    cut = sum(
        tokenizer(long[start : start + _AT_ONCE], length).cut
        for start in range(0, len(long), _AT_ONCE)
    )
    if cut:
        more = "--text.length allows more" if length < most else "the encoder reads no more"
        notes.append(
            f"{cut:,} captions are longer than {length} tokens and lose their ends; {more}."
        )
    notes.append(f"captions of up to {length} tokens, of {tokenizer.size:,} there are")
    return Read(tokenizer, length, reader, described, pretrained, tuple(notes))


def refuse_idle(run: RunConfig) -> None:
    """Refuse settings of what is read and how that would change nothing.

    Raises:
        ConfigError: captions made for what reads none, an encoder's run for what takes none, or a
            length, vocabulary or tokenizer that is not the encoder's.
        CheckpointError: what is named is no model.
    """
    config = run.text
    reads = config.encoder != "none" and run.objective.name in ("diffusion", "contrastive")
    if run.data.captions and not reads:
        raise ConfigError(
            f"The recipe '{run.recipe}' reads no captions, so that --data.captions would change "
            "nothing; leave it out, or take --recipe text-to-pixels, text-to-image or clip."
        )
    if config.run is not None and config.encoder in ("none", "learned"):
        raise ConfigError(
            f"--text.run {config.run} would change nothing: with the text encoder "
            f"'{config.encoder}' no other run's is used. Give --text.encoder clip, or leave it out."
        )
    if config.encoder != "clip" or config.run is None:
        return
    own, default = read_config(_found(Path(config.run))).text, TextConfig()
    for name in ("length", "vocabulary", "tokenizer"):
        given, decided = getattr(config, name), getattr(own, name)
        if given not in (getattr(default, name), decided):
            has = "its own" if decided is None else decided
            raise ConfigError(
                f"--text.{name} {given} would change nothing: captions are read as the encoder in "
                f"{config.run} reads them, with {name} {has}. Leave it out, or leave out "
                "--text.run to train an encoder so."
            )


def _encoder(
    config: TextConfig, own: Path, checkpoint: Path | None
) -> tuple[Tokenizes, int, WordEncoder, ReaderConfig]:
    """The encoder of the run that is named, with its tokenizer, or that of the run's checkpoint."""
    runtime = Runtime(threads=torch.get_num_threads())
    if checkpoint is not None:
        kept = read_config(checkpoint)
        parts = load_parts(checkpoint, kept, runtime)
        if parts.tokenizer is None or parts.reader is None or kept.reader is None:
            raise CheckpointError(f"{checkpoint} holds no encoder of words; it is of another run.")
        return parts.tokenizer, kept.text.length, parts.reader, kept.reader
    run = needed_run(config.run, own)
    if run is None:
        raise InputError(
            "The text encoder 'clip' needs its run; train one with --recipe clip and name it: "
            "--text.run RUN."
        )
    held, network, tokenizer = load_encoder(_found(run), runtime=runtime)
    reader = network.reader
    digest = hashlib.sha256(tensor_bytes(reader.state_dict())).hexdigest()
    described = ReaderConfig(width=reader.width, depth=reader.depth, digest=digest)
    return tokenizer, held.text.length, reader, described


def _found(run: Path) -> Path:
    """The folder of an encoder's weights.

    Raises:
        CheckpointError: there is no run; what another library's is read by is said.
    """
    try:
        return find_model(run)
    except CheckpointError as error:
        if not (reads_as_hub_name(str(run)) or (run / "config.json").is_file()):
            raise
        hint = "A CLIP or a T5 of transformers is read by --text.encoder pretrained."
        raise CheckpointError(f"{error} {hint}") from None


def _pretrained(config: TextConfig, checkpoint: Path | None) -> interop.Pretrained:
    """The encoder of another library that is named; for a run that goes on, the one it began with,
    wherever that lies now."""
    if config.run is None:
        raise InputError(
            "The text encoder 'pretrained' needs a name; give a folder with a CLIP or a T5 of "
            "transformers, or owner/name of the Hugging Face hub: --text.run NAME."
        )
    if checkpoint is None:
        return interop.open_words(config.run)
    kept = read_config(checkpoint).pretrained
    if kept is None:
        raise CheckpointError(
            f"{checkpoint} was not trained with an encoder of another library; it is of another "
            "run."
        )
    return interop.open_again(kept.model_copy(update={"source": config.run}))


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
