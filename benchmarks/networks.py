"""What the benchmarks train: our networks by our own trainer, diffusers' by its usual loop."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from couette import api
from couette.recipes import Session

SIDE = 28
COURSE = {
    "sample_size": SIDE,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 2,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
"""diffusers' UNet2DModel of the Hugging Face course, 1,707,009 parameters."""

WIDE = {
    "sample_size": 64,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 2,
    "block_out_channels": (96, 160, 160, 320),
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
}
"""A UNet2DModel for 64×64 of about the 27.6 GFLOP of our `large`."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

THREADS = torch.get_num_threads()
"""Of a process that nobody has told another number."""


def low_precision() -> bool:
    """Whether the machine has units for bfloat16."""
    able = torch.cpu.get_capabilities()
    return DEVICE == "cuda" or bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def scratch() -> Path:
    """A new folder that is gone when the benchmark ends."""
    folder = tempfile.mkdtemp(prefix="couette-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def strokes(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Made-up pictures, (count, side, side) uint8: only speed is measured."""
    coarse = torch.rand(count, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    pictures = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (255 * (pictures > 0.6)).to(torch.uint8)[:, 0]


def picture_folder(count: int, side: int = SIDE) -> Path:
    """A folder of PNG files, which may be more than the memory budget holds."""
    folder = scratch()
    for i, picture in enumerate(strokes(count, side).numpy()):
        Image.fromarray(picture).save(folder / f"{i:06}.png", compress_level=1)
    return folder


def data_folder(count: int, side: int = SIDE) -> Path:
    """A folder of IDX files in MNIST's form."""
    folder = scratch()
    for seed, (split, number) in enumerate((("train", count), ("t10k", 64))):
        pixels = strokes(number, side, seed).numpy().tobytes()
        sizes = b"".join(n.to_bytes(4, "big") for n in (0x803, number, side, side))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(sizes + pixels)
        labels = (torch.arange(number) % 10).to(torch.uint8).numpy().tobytes()
        head = b"".join(n.to_bytes(4, "big") for n in (0x801, number))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels)
    return folder


def session(folder: Path, **settings: Any) -> Session:
    """A run of ours, prepared and never written. Its trainer is what is timed."""
    recipe = settings.pop("recipe", "default")
    steps = settings.pop("steps", 500)
    out = scratch() / "run"
    return api.begin(
        folder, out=out, recipe=recipe, length={"steps": steps}, settings=settings or None
    )


def steps_of(run: Session) -> Callable[[], Any]:
    """One step of a run's trainer a call, with its own threads: everything that a step of training
    does."""
    progress = run.trainer.run()

    def step() -> Any:
        run.runtime.apply()
        return next(progress)

    return step


def forward_flops(network: nn.Module, *arguments: Any) -> int:
    """Floating-point operations of one forward pass of convolutions and products."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*arguments)
    return int(counter.get_total_flops())


def diffusers_network(settings: dict[str, Any] = COURSE) -> nn.Module:
    """A UNet2DModel as diffusers builds it, on the device."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network: nn.Module = UNet2DModel(**settings).to(DEVICE)
    return network


def diffusers_steps(
    network: nn.Module,
    pictures: Tensor,
    batch: int,
    *,
    layout: torch.memory_format = torch.contiguous_format,
    bf16: bool = False,
    tuned: bool = False,
) -> Callable[[], None]:
    """The course's training loop: mix with uniform noise, predict the picture, Adam.

    tuned: the pictures lie on the device, the optimizer is fused, and the loss is not read.
    """
    network.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=tuned)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(pictures), batch_size=batch, shuffle=True, drop_last=True
    )
    stream = iter([])
    resident = pictures.to(DEVICE)
    told = torch.zeros((), dtype=torch.int64, device=DEVICE) if tuned else 0

    def drawn() -> Tensor:
        nonlocal stream
        if tuned:
            return resident[torch.randint(len(resident), (batch,), device=DEVICE)]
        found = next(stream, None)
        if found is None:
            stream = iter(loader)
            found = next(stream)
        x: Tensor = found[0].to(DEVICE)
        return x

    def step() -> None:
        x = drawn()
        amount = torch.rand(len(x), 1, 1, 1, device=DEVICE)
        noised = ((1 - amount) * x + amount * torch.rand_like(x)).contiguous(memory_format=layout)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            predicted = network(noised, told).sample
        loss = nn.functional.mse_loss(predicted.float(), x)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if not tuned:
            loss.item()

    return step
