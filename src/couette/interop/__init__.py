"""Models of other libraries as ours, and ours for them.

Any folder or hub name in the layout of diffusers is a model here:

    model = interop.load("CompVis/stable-diffusion-v1-4", runtime)   # or a folder

The one place that imports diffusers and transformers, and only where a model needs them. Class
names in a config choose from closed tables; weights are read from safetensors alone; nothing is
unpickled, and no file names what is imported.

| file | what it holds |
|---|---|
| `places.py` | what a name means: a folder here, or a model of the hub |
| `hub.py` | a model of the hub, fetched |
| `folders.py` | a model's folder: checked JSON, checked weights |
| `libraries.py` | diffusers and transformers: imported late, their classes by a closed table |
| `schedulers.py` | a scheduler's config as schedule, parameterization, grid and threshold |
| `networks.py` | their networks as ours: (x, told, cond) |
| `encoders.py` | their encoders of words |
| `words.py` | one of those for a model that is trained here |
| `codecs.py` | their autoencoder as a codec |
| `pictures.py` | pictures to work from: to be enlarged, or filled in |
| `families/` | from a folder to what the model is and to its parts, a kind of pipeline a file |
| `loading.py` | the model |
| `exports.py`, `to_diffusers.py`, `to_onnx.py` | ours, for others |
| `graphs.py` | a module as a graph of ONNX, checked against torch |
"""

from couette.interop.families import PIPELINES
from couette.interop.loading import describe, load
from couette.interop.pictures import enlarging
from couette.interop.places import home_of, is_foreign, refuse_pickles
from couette.interop.words import Pretrained, open_again, open_words

__all__ = [
    "PIPELINES",
    "Pretrained",
    "describe",
    "enlarging",
    "home_of",
    "is_foreign",
    "load",
    "open_again",
    "open_words",
    "refuse_pickles",
]
