"""From a folder to what a model is, and to its parts: a kind of pipeline a file.

What it is, is read from its configs alone; nothing is loaded for it.

common.py     what all of them have in common
pixels.py     DDPM, DDIM · stable.py  Stable Diffusion 1 and 2
deepfloyd.py  DeepFloyd IF, both stages · dit.py  DiT
straight.py   Stable Diffusion 3, Flux
"""

from __future__ import annotations

from collections.abc import Mapping

from couette.interop.families.common import Family, Parts
from couette.interop.families.deepfloyd import DEEPFLOYD
from couette.interop.families.dit import DIT
from couette.interop.families.pixels import PIXELS
from couette.interop.families.stable import STABLE
from couette.interop.families.straight import FLUX, STABLE_3

__all__ = ["PIPELINES", "Family", "Parts"]

PIPELINES: Mapping[str, Family] = {
    "DDPMPipeline": PIXELS,
    "DDIMPipeline": PIXELS,
    "UNet2DModel": PIXELS,
    "StableDiffusionPipeline": STABLE,
    "StableDiffusionImg2ImgPipeline": STABLE,
    "StableDiffusionInpaintPipeline": STABLE,
    "IFPipeline": DEEPFLOYD,
    "IFImg2ImgPipeline": DEEPFLOYD,
    "IFInpaintingPipeline": DEEPFLOYD,
    "IFSuperResolutionPipeline": DEEPFLOYD,
    "IFImg2ImgSuperResolutionPipeline": DEEPFLOYD,
    "IFInpaintingSuperResolutionPipeline": DEEPFLOYD,
    "DiTPipeline": DIT,
    "StableDiffusion3Pipeline": STABLE_3,
    "StableDiffusion3Img2ImgPipeline": STABLE_3,
    "FluxPipeline": FLUX,
    "FluxImg2ImgPipeline": FLUX,
}
"""The pipelines that can be loaded, by the class that their index names; and the single network
that needs no other part."""
