"""Networks, one a file, each registered under its name. They know nothing of diffusion.

A new network is one class in one file, decorated with `@NETWORKS.register("name")`, and one line
here. It takes (x, told, cond) and gives back a tensor of x's shape. One that does not look at what
it is told of the time declares `blind=True`, one for points in the plane `points=True`.
"""

from couette.networks import clip, encoder, vae  # noqa: F401  (they register themselves)
from couette.networks.basic import BasicUNet
from couette.networks.berkeley import BerkeleyUNet
from couette.networks.diffusers_config import (
    from_diffusers_config,
    sizes_from_diffusers_config,
    to_diffusers_config,
)
from couette.networks.dit import DiT
from couette.networks.plan import PlanRow, count_parameters, plan
from couette.networks.points import PointMLP
from couette.networks.tokens import TokenTransformer
from couette.networks.unet import UNet
from couette.networks.unet2d import UNet2D

__all__ = [
    "BasicUNet",
    "BerkeleyUNet",
    "DiT",
    "PlanRow",
    "PointMLP",
    "TokenTransformer",
    "UNet",
    "UNet2D",
    "count_parameters",
    "from_diffusers_config",
    "plan",
    "sizes_from_diffusers_config",
    "to_diffusers_config",
]
