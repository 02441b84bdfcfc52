"""A graph of ONNX computes what the network does, of any number of rows; its card draws with it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from couette import api
from couette.api.exporting import exported
from couette.contracts import Ask, Cond
from couette.errors import CheckpointError, CouetteError, InputError
from couette.interop import graphs, to_onnx
from couette.model import Model, load_model
from couette.registry import GRIDS, NETWORKS
from couette.samplers import SAMPLERS
from interop.saved_models import UNET2D, WORDS, saved
from worlds import silent

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = ("a", "b", "c")
TEXT = {"encoder": "learned", "length": 8, "vocabulary": WORDS.size}
READ = {
    "text": {**TEXT, "encoder": "clip"},
    "reader": {"width": 16, "depth": 1, "digest": ""},
}
LATENT = {
    "codec": "latent",
    "autoencoder": {
        "network": "vae:factor=2,latent=2,width=8,blocks=1",
        "mean": (0.1, -0.2),
        "scale": (0.9, 1.3),
        "digest": "",
    },
}
STATES = {
    "codec": "levels:count=3",
    "diffusion": {
        "schedule": "flow",
        "noise": "absorbing",
        "parameterization": "x0",
        "told": "time",
    },
    "sampling": {"sampler": "categorical"},
}
LEARNED = {"schedule": "cosine", "parameterization": "v", "told": "index", "variance": "learned"}
TOY = {"schedule": "flow", "noise": "uniform", "parameterization": "x0", "told": "constant"}
FLOW = {"schedule": "flow", "parameterization": "flow", "told": "time"}


def slowly(*case: Any, id: str) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow, id=id)


POINTS = {"channels": 2, "height": 1, "width": 1}
CASES = [
    pytest.param("points:hidden=8,depth=1", {**POINTS, "classes": CLASSES}, id="points"),
    pytest.param("unet:size=tiny,width=16", {"classes": CLASSES}, id="unet, classes"),
    slowly("dit:width=16,depth=1", {**READ, "diffusion": FLOW}, id="dit, words read for it"),
    slowly(
        "basic",
        {"codec": "unit", "diffusion": TOY, "sampling": {"grid": "uniform", "sampler": "mix"}},
        id="basic, uniform noise",
    ),
    slowly("berkeley:hidden=4,time=true", {"classes": CLASSES}, id="berkeley"),
    slowly(UNET2D, {"classes": CLASSES, "diffusion": LEARNED}, id="unet2d, learned variance"),
    slowly("tokens:width=16,depth=1", {**STATES, "classes": CLASSES}, id="tokens, states"),
    slowly(
        "unet:size=tiny,width=16",
        {"text": TEXT, "sampling": {"threshold": "static"}},
        id="unet, words",
    ),
    slowly("dit:width=16,depth=2,words=joint", {"text": TEXT}, id="dit, words beside patches"),
    slowly("unet:patch=1,size=tiny,width=16", LATENT, id="unet, latents"),
    slowly(
        "unet:size=tiny,width=16,dropout=0.5",
        {"diffusion": {"self_conditioning": True}, "height": 6, "width": 10},
        id="unet, its own last prediction",
    ),
]


def test_every_network_of_pictures_is_here() -> None:
    written = {str(case.values[0]).partition(":")[0] for case in CASES}
    gives = {name for name in NETWORKS if NETWORKS.trait(name, "gives", "pictures") == "pictures"}
    assert written == gives


def given(model: Model, rows: int) -> dict[str, Tensor]:
    """Inputs other than those that the export was checked with."""
    generator = torch.Generator().manual_seed(99)
    x = torch.randn(rows, *model.shape, generator=generator)
    t = torch.linspace(0.05, 0.95, rows, dtype=torch.float64)
    level = model.denoiser.corruption.schedule.level(t)
    told = {"x": x, "told": model.denoiser.told(t, level).reshape(-1).expand(rows).float()}
    if "label" in model.denoiser.network.wants:
        told["label"] = torch.arange(rows) % (len(CLASSES) + 1)
    if model.conditioner.words is not None:
        captions = ["a red circle", "", "a blue square on a red circle", "red", "b"][:rows]
        tokens = WORDS(captions, TEXT["length"])  # type: ignore[arg-type]
        told |= {"text": tokens.ids, "text_mask": tokens.mask}
    if "x0" in model.denoiser.network.wants:
        told["x0"] = torch.randn(rows, *model.shape, generator=generator)
    return told


def computed(path: Path, told: dict[str, Tensor]) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    (output,) = session.run(None, {name: value.numpy() for name, value in told.items()})
    return torch.from_numpy(output)


def network(model: Model, told: dict[str, Tensor]) -> Tensor:
    """What the network says, told as the conditioner would tell it."""
    cond = {name: value for name, value in told.items() if name not in ("x", "told")}
    words = model.conditioner.words
    with torch.no_grad():
        if words is not None and words.reader is not None:
            cond["text"] = words.reader(cond["text"], cond["text_mask"])[0]
        output: Tensor = model.network(told["x"], told["told"], cond)
    return output


def close(mine: Tensor, other: Tensor) -> None:
    assert float(other.std()) > 1e-3
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(("written", "fields"), CASES)
def test_it_computes_what_the_network_does(
    written: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """On batches of other sizes than it was written with; and the card's loop, which knows nothing
    of torch, draws what Euler's method draws here."""
    run = saved(tmp_path / "run", written, **fields)
    made = exported(run, tmp_path / "out", format="onnx")
    model = load_model(run)
    for rows in (1, 5):
        told = given(model, rows)
        close(computed(made.path / "model.onnx", told), network(model, told))
    about = json.loads((made.path / "model.json").read_text())
    if written == UNET2D:  # its norms are one operator each, not their moments step by step
        operators = [each.op_type for each in onnx.load(made.path / "model.onnx").graph.node]
        assert "ReduceMean" not in operators
        assert operators.count("InstanceNormalization") == 21
    assert about["graphs"]["model.onnx"]["error"] < 1e-5
    assert [i["name"] for i in about["graphs"]["model.onnx"]["inputs"]] == list(told)
    assert f"{about['graphs']['model.onnx']['error']:.1e}" in made.notes[0]
    assert b"saved_models" not in (made.path / "model.onnx").read_bytes()
    assert (
        str(Path(to_onnx.__file__).parent).encode() not in (made.path / "model.onnx").read_bytes()
    )
    if model.config.autoencoder is not None:
        with torch.no_grad():
            pictures = torch.rand(3, 1, 8, 8) * 2 - 1
            latents = model.codec.encode(pictures)
            close(computed(made.path / "encoder.onnx", {"pictures": pictures}), latents)
            close(
                computed(made.path / "decoder.onnx", {"latents": latents}),
                model.codec.decode(latents),
            )
    if "steps" in about:
        close(torch.from_numpy(by_the_card(made.path)).float(), by_euler(model))
    else:
        assert "```" not in (made.path / "README.md").read_text()
    with pytest.raises(CheckpointError, match="holds a model as ONNX"):
        api.load(made.path)


def by_the_card(folder: Path) -> np.ndarray[Any, Any]:
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(code[1].replace("json.load(open(", "json.load(opened("), {"opened": opened}, names)
    pictures: np.ndarray[Any, Any] = names["x"]
    return pictures


def opened(path: str) -> Any:
    """As `open`, but closed: what is left open is a warning, and warnings are errors here."""
    import io

    return io.StringIO(Path(path).read_text(encoding="utf-8"))


def by_euler(model: Model) -> Tensor:
    """The same noise led to a picture by ours, told nothing in particular."""
    sampling, rng = model.config.sampling, np.random.default_rng(0)
    schedule = model.denoiser.corruption.schedule
    times = GRIDS.bind(sampling.grid)(schedule, steps=sampling.steps)
    start, noise = schedule.level(times[0]), model.config.diffusion.noise
    draw = rng.random if noise == "uniform" else rng.standard_normal
    power = start.sigma if noise == "uniform" else torch.hypot(*start)
    x = torch.from_numpy(draw((4, *model.shape))) * power
    denoise = _Plain(model)
    with torch.no_grad():
        (*_, last) = SAMPLERS["euler"](denoise, x, times, model.conditioner([Ask()] * 4), silent)
        return model.codec.decode(last.x.float())


class _Plain:
    """The model's denoiser: told its last prediction where it reads it, and clipped where asked."""

    def __init__(self, model: Model) -> None:
        self.model, self.corruption = model, model.denoiser.corruption
        self.last: dict[str, Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Any:
        p = self.model.denoiser(x, t, {**cond, **self.last})
        if "x0" in self.model.denoiser.network.wants:
            self.last = {"x0": p.x0.float()}
        if self.model.config.sampling.threshold.name == "static":
            p = p._replace(x0=p.x0.clamp(-1, 1))
        return p


def test_a_graph_of_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(tmp_path / "run", "points:hidden=8,depth=1", **POINTS)
    held = exported(run, tmp_path / "out", format="onnx").path / "model.onnx"
    stale = held.read_bytes()
    model = load_model(run)
    monkeypatch.setattr(graphs, "_written", lambda *given: stale)
    assert to_onnx.to_onnx(model, tmp_path).files["model.onnx"] == stale
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    with pytest.raises(CouetteError, match=r"differs from torch by \d\.\de-0\d of the largest"):
        to_onnx.to_onnx(model, tmp_path)


@pytest.mark.slow
def test_what_torch_cannot_write_is_said(tmp_path: Path) -> None:
    class Doubting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    example = graphs.Input("x", torch.ones(2, 1))
    with pytest.raises(CouetteError, match="torch can't write this network as ONNX"):
        graphs.graph(Doubting(), [example], "output")


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path / "run", "points:hidden=8,depth=1", **POINTS)
    with pytest.raises(InputError, match="written in float32; leave out --dtype"):
        api.export(run, tmp_path / "out", format="onnx", dtype="float16")
    with pytest.raises(InputError, match="leave out --label"):
        api.export(run, tmp_path / "out", format="onnx", label=1)
    with pytest.raises(InputError, match="'tflite' is no format of exports"):
        api.export(run, tmp_path / "out", format="tflite")  # type: ignore[arg-type]
    noise = {"schedule": "zero-terminal", "parameterization": "eps", "told": "index"}
    lost = saved(
        tmp_path / "lost", UNET2D, diffusion=noise, sampling={"grid": "strided", "sampler": "ddim"}
    )
    with pytest.raises(InputError, match="starts at pure noise, where a model that predicts 'eps'"):
        api.export(lost, tmp_path / "out", format="onnx")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(InputError, match=r"needs onnxscript.*pip install 'couette\[onnx\]'"):
        api.export(tmp_path / "nothing", tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
