"""A model's network as ONNX, for programs without torch: `model.onnx`, and `model.json` about it.

The network alone is exported, F(x, told, cond): what its output means, and where the steps of the
model's grid lie, stand as numbers in `model.json`, so that a sampler is a loop of a few lines (it
stands in the card). An encoder of words is part of the graph, which takes tokens; the autoencoder
of a model on latents lies beside it as `encoder.onnx` and `decoder.onnx`. All take any batch.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from couette.codecs import Latents
from couette.conditioners import Words
from couette.config import STATES, SamplingConfig
from couette.errors import CouetteError, InputError
from couette.interop.exports import Export, card_for
from couette.model import CONFIG, TOKENIZER, Model, pixel_range
from couette.networks.text import Reader
from couette.registry import GRIDS
from couette.storage import json_bytes

NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
"""The version of ONNX's operators that the graphs are written in."""

AGREES = 1e-3
"""Largest difference from the network in torch, of its largest output, that is let pass."""

NETWORK, ENCODER, DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"

_LARGEST = 2_000_000_000
"""Bytes of weights beyond which one file can't hold a graph."""


class _Input(NamedTuple):
    """One of a graph's inputs, by example, (B, …)."""

    name: str
    example: Tensor


def check_onnx() -> None:
    """Refuse to begin without the packages that writing and checking ONNX takes.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"--format onnx needs {', '.join(missing)}, which is not installed; get it with "
            "pip install 'couette[onnx]'."
        )


class _Network(nn.Module):
    """A network whose conditioning comes by position, as ONNX has it."""

    def __init__(self, network: nn.Module, keys: Sequence[str], reader: Reader | None) -> None:
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
        model: on the CPU in float32, with any network that makes pictures.
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
    graphs = {NETWORK: _graph(network, inputs, "output")}
    if isinstance(model.codec, Latents):
        config = model.config
        pictures = _normal((config.channels, config.height, config.width)).clamp(-1, 1)
        latents = [_Input("latents", _normal(model.shape))]
        graphs[ENCODER] = _graph(_Encoder(model.codec), [_Input("pictures", pictures)], "latents")
        graphs[DECODER] = _graph(_Decoder(model.codec), latents, "pictures")
    files = {name: graph.data for name, graph in graphs.items()}
    about["graphs"] = {name: graph.described for name, graph in graphs.items()}
    files[CONFIG] = json_bytes(about)
    if words is not None:
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
    words = model.conditioner.words
    if words is None or isinstance(words, Words):
        return words
    raise InputError(
        "ONNX is written of networks that were trained here; this model is of another library."
    )


def _inputs(model: Model) -> list[_Input]:
    """What the network is given, two rows of each: x, the time, then all that it can be told."""
    wants = model.denoiser.network.wants
    schedule = model.denoiser.corruption.schedule
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    told = model.denoiser.told(t, schedule.level(t)).reshape(-1).expand(2).float().contiguous()
    inputs = [_Input("x", _normal(model.shape)), _Input("told", told)]
    classes = len(model.config.classes)
    if "label" in wants:
        inputs.append(_Input("label", torch.tensor([0, classes])))
    words = _words(model)
    if words is not None:
        tokens = words.tokenizer(["a", ""], words.length)
        inputs += [_Input("text", tokens.ids), _Input("text_mask", tokens.mask)]
    if "x0" in wants:
        inputs.append(_Input("x0", _normal(model.shape).flip(0)))
    return inputs


class _Graph(NamedTuple):
    """A graph as a file. error: its largest difference from torch, of the largest output."""

    data: bytes
    described: dict[str, Any]
    error: float


def _graph(module: nn.Module, inputs: Sequence[_Input], output: str) -> _Graph:
    """A module as ONNX, checked on batches of three sizes."""
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    if size > _LARGEST:
        raise InputError(
            f"The weights take {size / 1e9:.1f} GB, and a file of ONNX holds 2 GB; write the model "
            "with --format couette."
        )
    data = _written(module.eval(), inputs, output)
    error = max(_difference(module, data, inputs, batch) for batch in (2, 1, 3))
    if not error <= AGREES:
        raise CouetteError(
            f"Nothing was written: what onnxruntime computes differs from torch by {error:.1e} of "
            f"the largest output, where {AGREES:g} is let pass; write the model with --format "
            "couette."
        )
    described = {
        "inputs": [_described(i.name, i.example) for i in inputs],
        "output": output,
        "opset": OPSET,
        "error": error,
    }
    return _Graph(data, described, error)


def _described(name: str, example: Tensor) -> dict[str, Any]:
    dtype = str(example.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": ["batch", *example.shape[1:]]}


def _written(module: nn.Module, inputs: Sequence[_Input], output: str) -> bytes:
    """A module as a file of ONNX, any number of rows."""
    batch = torch.export.Dim("batch")
    rows = [{0: batch} for _ in inputs]
    # The arguments after the second stand in a tuple of their own where they are `*given`.
    many = isinstance(module, _Network)
    shapes = (*rows[:2], tuple(rows[2:])) if many and rows[2:] else tuple(rows)
    try:
        with _undisturbed(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(i.example for i in inputs),
                dynamo=True,
                input_names=[i.name for i in inputs],
                output_names=[output],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CouetteError(
            f"torch can't write this network as ONNX ({type(error).__name__}: {reason}); write "
            "the model with --format couette."
        ) from error
    assert program is not None
    proto: Any = program.model_proto
    # Where in whose files each operator comes from is nobody's business.
    for each in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del each.metadata_props[:]
    data: bytes = proto.SerializeToString()
    return data


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without torch's fused encoder layer, which ONNX has no operator for, and what the exporter
    has to say of packages that are not needed."""
    fast, quiet = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(quiet)


def _difference(module: nn.Module, data: bytes, inputs: Sequence[_Input], batch: int) -> float:
    """The largest difference between onnxruntime and torch on `batch` rows, of the largest
    output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = {i.name: _rows(i.example, batch) for i in inputs}
    with torch.no_grad():
        ours = module(*given.values())
    taken = {i.name for i in session.get_inputs()}
    (theirs,) = session.run(None, {k: v.numpy() for k, v in given.items() if k in taken})
    other = torch.from_numpy(theirs)
    if other.shape != ours.shape:
        return float("inf")
    return float((other - ours).abs().max() / ours.abs().max().clamp(min=1e-12))


def _rows(example: Tensor, batch: int) -> Tensor:
    """That many rows, in turn from the example."""
    return example[torch.arange(batch) % len(example)]


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


def _use(model: Model, folder: Path, inputs: Sequence[_Input], about: Mapping[str, Any]) -> str:
    """The card's section on how to draw with numpy."""
    where = f"`{NETWORK}` is the network, with any number of rows:"
    listed = "\n".join(
        f"- `{d['name']}` {d['dtype']} {tuple(d['shape'])}"
        for d in (_described(*each) for each in inputs)
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


def _asked(given: _Input) -> str:
    """What is told in the card's example: nothing in particular."""
    if given.name == "label":
        return 'np.full(count, about["classes"]["none"])'
    if given.name == "x0":
        return 'np.zeros(noise.shape, "float32")'
    tokens = given.example[-1:]  # of the empty caption
    dtype = str(tokens.dtype).removeprefix("torch.")
    return f'np.array({tokens.tolist()}, "{dtype}").repeat(count, 0)'
