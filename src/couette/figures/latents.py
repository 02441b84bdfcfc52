"""What an autoencoder keeps: pictures that come back, what lies between two, and random latents."""

from __future__ import annotations

from typing import cast

import torch
from PIL.Image import Image
from torch import Tensor

from couette.codecs import Latents, measure_latents, some_of
from couette.data import to_float
from couette.figures.registry import Columns, Picture, Rows, Runs, Seed, figure, still
from couette.figures.reverse import named, others
from couette.figures.target import Target
from couette.model import load_autoencoder
from couette.render import beside as side_by_side
from couette.render import grid, strip
from couette.runtime import choose
from couette.tensors import Stream, normal, permutation

_ABOUT = {
    "reconstructions": "Pictures of the data, and below each what comes back of it.",
    "interpolations": "In each row even steps from the latents of one picture to another's.",
    "random": "What random latents, drawn from the normal distribution, decode to.",
}
"""What each sheet shows."""


@figure("latents", needs=("data", "weights", "latents"))
def latents(
    target: Target,
    *,
    columns: Columns = 8,
    rows: Rows = 4,
    beside: Runs = (),
    seed: Seed = 0,
) -> list[Picture]:
    """Pictures through the latents and back; in even steps between two of them; random latents.

    With --beside RUN another autoencoder's stand next to them. A plain autoencoder leaves gaps
    between the latents of its pictures, which decode to gibberish; one that is variational fills
    them (Kingma & Welling 2014).
    """
    sheets: dict[str, dict[str, Image]] = {}
    notes = []
    for name, each in named([target, *others(target, beside, "latents")]).items():
        whose = each if each.has_data else target
        codec = _opened(each, whose)
        pictures = _some(whose, max(columns, 2 * rows), seed).to(codec.runtime.device)
        z = codec.encode(pictures)
        kind = "variational" if codec.network.variational else "plain"
        notes.append(f"{name}: a {kind} autoencoder, latents of {tuple(z.shape[1:])}.")
        shown = {
            "reconstructions": strip(
                {"picture": pictures[:columns].cpu(), "there and back": _seen(codec, z[:columns])}
            ),
            "interpolations": grid(_seen(codec, between(z[: 2 * rows], columns)), columns=columns),
            "random": grid(_seen(codec, _noise(z, rows * columns, seed)), columns=columns),
        }
        for what, image in shown.items():
            sheets.setdefault(what, {})[name] = image
    drawn: list[Picture] = []
    for what, images in sheets.items():
        image = side_by_side(images) if beside else next(iter(images.values()))
        drawn.append(still(what, image, _ABOUT[what], *(notes if not drawn else ())))
    return drawn


def between(z: Tensor, columns: int) -> Tensor:
    """Latents in even steps from each first to each second of z (2·R, D, h, w): R rows."""
    share = torch.linspace(0, 1, columns, device=z.device)[None, :, None, None, None]
    first, second = z[0::2, None], z[1::2, None]
    return torch.lerp(first, second, share).flatten(0, 1)


def _noise(z: Tensor, count: int, seed: int) -> Tensor:
    index = torch.arange(count)
    keys = torch.stack((index, torch.zeros_like(index)), 1).to(z.device)
    return normal(seed, keys, Stream.SAMPLING, z.shape[1:])


def _opened(target: Target, data: Target) -> Latents:
    """The autoencoder of a target or of a model of latents, with its latents' mean and scale."""
    if target.latent:
        return cast(Latents, target.codec)
    runtime = choose(target.runtime)
    _, network = load_autoencoder(target.saved, average=target.average, runtime=runtime)
    measured = measure_latents(network, some_of(data.splits.train), runtime)
    return Latents(network, *measured, runtime)


def _some(target: Target, count: int, seed: int) -> Tensor:
    data = target.unseen
    order = permutation(seed, 0, len(data))
    return to_float(data.pictures(order[torch.arange(count) % len(order)]))


@torch.no_grad()
def _seen(codec: Latents, z: Tensor) -> Tensor:
    return codec.decode(z).clamp(-1, 1).cpu()
