"""A model's network as ONNX, for programs without torch: `model.onnx`, and `model.json` about it.

The network alone is exported, F(x, told, cond): what its output means, and where the steps of the
model's grid lie, stand as numbers in `model.json`, so that a sampler is a loop of a few lines (it
stands in the card). An encoder of words is part of the graph, which takes tokens; the autoencoder
of a model on latents lies beside it as `encoder.onnx` and `decoder.onnx`. All take any batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from couette.codecs import Latents
from couette.conditioners import Words
from couette.config import STATES, SamplingConfig
from couette.data.tokenizer import Tokenizer
from couette.errors import InputError
from couette.interop.exports import Export, card_for
from couette.interop.graphs import Input, check_onnx, graph
from couette.model import CONFIG, TOKENIZER, Model, pixel_range
from couette.networks.text import WordEncoder
from couette.registry import GRIDS
from couette.storage import json_bytes

NETWORK, ENCODER, DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"


class _Network(nn.Module):
    """A network whose conditioning comes by position, as ONNX has it."""

    def __init__(self, network: nn.Module, keys: Sequence[str], reader: WordEncoder | None) -> None:
        super().__init__()
        self.network, self.keys, self.reader = network, tuple(keys), reader

    def forward(self, x: Tensor, told: Tensor, *given: Tensor) -> Tensor:
        cond = dict(zip(self.keys, given, strict=True))
        if self.reader is not None:
            cond["text"] = self.reader(cond["text"], cond["text_mask"])[0]
        output: Tensor = self.network(x, told, cond)
        return output


class _Encoder(nn.Module):
    """Pictures to the latents that the denoiser works on, the mean of each."""

    def __init__(self, codec: Latents) -> None:
        super().__init__()
        self.codec, self.network = codec, codec.network

    def forward(self, pictures: Tensor) -> Tensor:
        return self.codec.scaled(self.network.encode(pictures).mean)


class _Decoder(nn.Module):
    """Latents as the denoiser works on them to pictures."""

    def __init__(self, codec: Latents) -> None:
        super().__init__()
        self.codec, self.network = codec, codec.network

    def forward(self, latents: Tensor) -> Tensor:
        return self.network.decode(torch.addcmul(self.codec.mean, latents, self.codec.scale))


def to_onnx(model: Model, folder: Path, *, card: str | None = None) -> Export:
    """The files of a model as ONNX, each checked against torch by onnxruntime.

    Args:
        model: on the CPU in float32, with any network that makes pictures; in the layout
            "contiguous" the graph is smaller.
        folder: where they will lie; for the card.
        card: the run's.

    Raises:
        InputError: packages are missing, or the network is too large for one file.
        CouetteError: torch can't write the network as ONNX, or onnxruntime computes something else.
    """
    check_onnx()
    inputs, about = _inputs(model), _about(model)
    words = _words(model)
    network = _Network(model.network, [i.name for i in inputs[2:]], words.reader if words else None)
    graphs = {NETWORK: graph(network, inputs, "output")}
    if isinstance(model.codec, Latents):
        config = model.config
        pictures = _normal((config.channels, config.height, config.width)).clamp(-1, 1)
        latents = [Input("latents", _normal(model.shape))]
        graphs[ENCODER] = graph(_Encoder(model.codec), [Input("pictures", pictures)], "latents")
        graphs[DECODER] = graph(_Decoder(model.codec), latents, "pictures")
    files = {name: graph.data for name, graph in graphs.items()}
    about["graphs"] = {name: graph.described for name, graph in graphs.items()}
    files[CONFIG] = json_bytes(about)
    if words is not None and isinstance(words.tokenizer, Tokenizer):
        files[TOKENIZER] = words.tokenizer.text.encode()
    files["README.md"] = card_for(card, model.config, _use(model, folder, inputs, about))
    notes = [
        f"{name}: onnxruntime agrees with torch to {graph.error:.1e} of the largest output."
        for name, graph in graphs.items()
    ]
    if "perturb" in model.denoiser.network.wants:
        notes.append("Perturbed attention can't be asked of the graph.")
    return Export(files, {}, tuple(notes))


def _normal(shape: Sequence[int], batch: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def _words(model: Model) -> Words | None:
    """How captions are told to the model; None where they are not.

    Raises:
        InputError: they are told as another library does.
    """
    words, pretrained = model.conditioner.words, model.config.pretrained
    if pretrained is not None:
        raise InputError(
            f"This model is told its words by '{pretrained.source}', an encoder of another library "
            "that is no part of it, so it can't be written as ONNX."
        )
    if words is None or isinstance(words, Words):
        return words
    raise InputError(
        "ONNX is written of networks that were trained here; this model is of another library."
    )


def _inputs(model: Model) -> list[Input]:
    """What the network is given, two rows of each: x, the time, then all that it can be told."""
    wants = model.denoiser.network.wants
    schedule = model.denoiser.corruption.schedule
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    told = model.denoiser.told(t, schedule.level(t)).reshape(-1).expand(2).float().contiguous()
    inputs = [Input("x", _normal(model.shape)), Input("told", told)]
    classes = len(model.config.classes)
    if "label" in wants:
        inputs.append(Input("label", torch.tensor([0, classes])))
    words = _words(model)
    if words is not None:
        tokens = words.tokenizer(["a", ""], words.length)
        inputs += [Input("text", tokens.ids), Input("text_mask", tokens.mask)]
    if "x0" in wants:
        inputs.append(Input("x0", _normal(model.shape).flip(0)))
    return inputs


def _about(model: Model) -> dict[str, Any]:
    """What a program needs to draw with the network: what x starts from, and for each step what is
    told and what the output means."""
    config, denoiser = model.config, model.denoiser
    about: dict[str, Any] = {
        "model": config.model_dump(mode="json"),
        "classes": {"none": len(config.classes)} if "label" in denoiser.network.wants else None,
        "pictures": None if model.is_points else pixel_range(model.codec),
    }
    if config.diffusion.noise in STATES:
        return about
    steps = _steps(model, config.sampling)
    alpha, sigma = steps[0]["alpha"], steps[0]["sigma"]
    normal = config.diffusion.noise == "normal"
    about["start"] = {
        "noise": config.diffusion.noise,
        "scale": (alpha**2 + sigma**2) ** 0.5 if normal else sigma,
    }
    about["steps"] = steps
    return about


def _steps(model: Model, sampling: SamplingConfig) -> list[dict[str, float]]:
    """The levels of the model's own grid, the clean end last: x0 = skip·x + out·F(inp·x, told).

    Raises:
        InputError: the network's output says nothing of x0 where the grid starts.
    """
    denoiser = model.denoiser
    times = GRIDS.bind(sampling.grid)(denoiser.corruption.schedule, steps=sampling.steps)
    level = denoiser.corruption.schedule.level(times)
    columns = {
        "t": times,
        **level._asdict(),
        "told": denoiser.told(times, level).expand(times.shape),
        **denoiser.parameterization(level)._asdict(),
    }
    rows = [
        {name: float(value[i]) for name, value in columns.items()} for i in range(len(times) - 1)
    ]
    if not all(torch.tensor(list(row.values())).isfinite().all() for row in rows):
        raise InputError(
            f"The grid '{sampling.grid}' starts at pure noise, where a model that predicts "
            f"'{model.config.diffusion.parameterization}' can't say what the picture is; choose "
            "another grid in the run's config.yaml, such as karras."
        )
    return [*rows, {"t": 0.0, "alpha": 1.0, "sigma": 0.0}]


def _use(model: Model, folder: Path, inputs: Sequence[Input], about: Mapping[str, Any]) -> str:
    """The card's section on how to draw with numpy."""
    where = f"`{NETWORK}` is the network, with any number of rows:"
    listed = "\n".join(
        f"- `{d['name']}` {d['dtype']} {tuple(d['shape'])}"
        for d in (each.described for each in inputs)
    ).replace("'", "")
    if "steps" not in about:
        return f"{where}\n{listed}"
    told = "\n".join(f'    "{i.name}": {_asked(i)},' for i in inputs[2:])
    learned = model.config.diffusion.variance == "learned"
    half = f"[:, :{model.shape[0]}]" if learned else ""
    clip = '\n    x0 = x0.clip(*about["pictures"])' if _clips(model) else ""
    recall = '\n    given["x0"] = x0.astype("float32")' if inputs[-1].name == "x0" else ""
    uniform = about["start"]["noise"] == "uniform"
    draw = "random" if uniform else "standard_normal"
    end = "\nx = x * 2 - 1" if model.config.codec.name == "unit" else ""
    if isinstance(model.codec, Latents):
        end = (
            f'\ndecoder = onnxruntime.InferenceSession(folder + "/{DECODER}")\n'
            'x = decoder.run(None, {"latents": x.astype("float32")})[0]'
        )
    what = "points, of" if model.is_points else "pictures in [-1, 1], of"
    return f"""{where}
{listed}

`{CONFIG}` says what its output means at each step of the run's grid. To draw with Euler's method:

```python
import json

import numpy as np
import onnxruntime

folder, count = {str(folder)!r}, 4
about = json.load(open(folder + "/{CONFIG}"))
network = onnxruntime.InferenceSession(folder + "/{NETWORK}")
noise = np.random.default_rng(0).{draw}((count, {", ".join(map(str, model.shape))}))
given = {{
{told}
}}
x = about["start"]["scale"] * noise
for a, b in zip(about["steps"], about["steps"][1:]):
    given["x"] = (a["inp"] * x).astype("float32")
    given["told"] = np.full(count, a["told"], "float32")
    x0 = a["skip"] * x + a["out"] * network.run(None, given)[0]{half}{clip}{recall}
    r = b["sigma"] / a["sigma"]
    x = r * x + (b["alpha"] - a["alpha"] * r) * x0{end}
```
It leaves {what} shape (count, channels, height, width), in x."""


def _clips(model: Model) -> bool:
    return model.config.sampling.threshold.name == "static"


def _asked(given: Input) -> str:
    """What is told in the card's example: nothing in particular."""
    if given.name == "label":
        return 'np.full(count, about["classes"]["none"])'
    if given.name == "x0":
        return 'np.zeros(noise.shape, "float32")'
    tokens = given.example[-1:]  # of the empty caption
    dtype = str(tokens.dtype).removeprefix("torch.")
    return f'np.array({tokens.tolist()}, "{dtype}").repeat(count, 0)'
