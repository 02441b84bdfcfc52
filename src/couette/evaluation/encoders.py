"""What there is to measure of models that draw nothing: autoencoders, and encoders of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from couette.codecs import Latents, measure_latents, some_of
from couette.conditioners import Words
from couette.data import Dataset, Progress, Splits
from couette.data.tokenizer import Tokenizer
from couette.errors import DataError
from couette.evaluation.judge import Judge, few_held_out
from couette.evaluation.reconstruction import there_and_back
from couette.evaluation.retrieval import embed_pictures, embed_texts, recall
from couette.networks.clip import Clip
from couette.networks.vae import VAE
from couette.runtime import Runtime
from couette.storage import write_bytes, write_json
from couette.tensors import permutation

MOST = 2_000
"""Held-out pictures that are looked at, at most."""


@dataclass(frozen=True)
class Measured:
    """Figures with their meaning, as lines to read and as plain data."""

    what: str
    sentences: tuple[str, ...]
    figures: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [*self.sentences, *self.notes]

    def json(self) -> dict[str, object]:
        return {"what": self.what, **self.figures, "notes": list(self.notes)}


def write_measured(measured: Measured, folder: Path) -> list[Path]:
    """Write report.json and report.txt into a folder.

    Raises:
        StorageError: the disk is full, read-only or refuses.
    """
    paths = [folder / "report.json", folder / "report.txt"]
    write_json(paths[0], measured.json())
    write_bytes(paths[1], ("\n".join(measured.lines()) + "\n").encode())
    return paths


def measure_autoencoder(
    network: VAE, splits: Splits, runtime: Runtime, progress: Progress | None = None
) -> Measured:
    """How well held-out pictures come back: PSNR, SSIM, rate, and the Fréchet distance of what
    comes back from what went in, beside that of other real pictures.

    Raises:
        DataError: nothing is held out.
    """
    data, index = _held_out(splits)
    measured = measure_latents(network, some_of(splits.train), runtime)
    latents = Latents(network, *measured, runtime)
    found, back = there_and_back(latents, data, index)
    judge = Judge(splits.train, data, count=len(index), runtime=runtime, progress=progress)
    distance = judge(back, None)[0].frechet
    floor = judge.floor.distances.frechet
    rate = "" if found.rate is None else f", {found.rate:.3g} bits per pixel"
    shape = latents.shape(data.channels, data.height, data.width)
    sentence = (
        f"{found.count:,} held-out pictures through latents of {shape[0]}×{shape[1]}×{shape[2]}: "
        f"PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.4f}, mean error {found.error:.4f}{rate}."
    )
    apart = f"Fréchet distance of what comes back: {distance:.4g} (floor {floor:.4g})."
    figures = {
        "count": found.count,
        "psnr": found.psnr,
        "ssim": found.ssim,
        "error": found.error,
        "rate": found.rate,
        "frechet": distance,
        "floor": floor,
    }
    return Measured("autoencoder", (sentence, apart), figures, few_held_out(data))


def measure_encoder(
    network: Clip,
    tokenizer: Tokenizer,
    length: int,
    splits: Splits,
    runtime: Runtime,
    progress: Progress | None = None,
) -> Measured:
    """How often the right caption is found for a held-out picture, and the other way round.

    Raises:
        DataError: nothing is held out, or it has no captions.
    """
    data, index = _held_out(splits)
    if data.texts is None:
        raise DataError(f"'{data.name}' has no captions to find; give captioned pictures.")
    index = torch.tensor([i for i in index.tolist() if data.texts[i].strip()], dtype=torch.int64)
    if not len(index):
        raise DataError(f"No held-out picture of '{data.name}' has a caption to find.")
    texts = [data.texts[i] for i in index.tolist()]
    pictures = embed_pictures(network, data, index, runtime, progress=progress)
    found = recall(pictures, embed_texts(network, Words(tokenizer, length), texts, runtime), texts)
    figures = {
        "count": found.count,
        "to_text": found.to_text,
        "to_picture": found.to_picture,
        "chance": found.chance,
    }
    return Measured("encoder", tuple(found.lines()), figures, few_held_out(data))


def _held_out(splits: Splits) -> tuple[Dataset, torch.Tensor]:
    test = splits.test
    if test is None or len(test) < 2:
        raise DataError(
            f"'{splits.train.name}' has no pictures kept for evaluation; set --data.holdout to a "
            "share such as 0.1, or name other data."
        )
    return test, permutation(0, 0, len(test))[: min(MOST, len(splits.train))]
