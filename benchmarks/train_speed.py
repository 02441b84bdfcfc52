"""Pictures a second in training, forward and backward, of each network on 28×28 gray pictures.

Every network is timed in turn, several rounds over, so that a machine that slows down slows all;
the medians are compared. Ratios are to the course's larger network in float32.
"""

from __future__ import annotations

import statistics
import time

import torch

from couette.config import Spec
from couette.contracts import Sizes
from couette.networks.plan import count_parameters
from couette.registry import NETWORKS
from couette.runtime import Runtime

SIZES = Sizes(1, 28, 28, 10)
BATCH = 64
ROUNDS = 5
NETS = {
    "course-unet": "unet2d",
    "course-basic": "basic",
    "berkeley D=64": "berkeley:hidden=64,time=true",
    "unet tiny": "unet:size=tiny",
    "unet small": "unet:size=small",
}


class Case:
    """One network in one dtype."""

    def __init__(self, text: str, dtype: str, threads: int) -> None:
        torch.manual_seed(0)
        self.runtime = Runtime(dtype=dtype, threads=threads)  # type: ignore[arg-type]
        self.network = self.runtime.place(NETWORKS.build(Spec.model_validate(text), SIZES))
        shape = (BATCH, *SIZES[:3])
        self.x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        self.told = torch.zeros(BATCH)
        wants = getattr(self.network, "wants", ())
        self.cond = {"label": torch.zeros(BATCH, dtype=torch.int64)} if "label" in wants else {}
        self.seconds: list[float] = []

    def step(self) -> None:
        begun = time.perf_counter()
        with self.runtime.autocast():
            out = self.network(self.x, self.told, self.cond)
        out.float().square().mean().backward()
        self.network.zero_grad(set_to_none=True)
        self.seconds.append(time.perf_counter() - begun)

    @property
    def speed(self) -> float:
        return BATCH / statistics.median(self.seconds[1:])


def run() -> None:
    """Time all and print a table."""
    threads = torch.get_num_threads()
    cases = {
        (name, dtype): Case(text, dtype, threads)
        for name, text in NETS.items()
        for dtype in ("float32", "bfloat16")
    }
    for _ in range(ROUNDS + 1):
        for case in cases.values():
            case.step()
    base = cases["course-unet", "float32"].speed
    print(f"{threads} threads, batch {BATCH}, forward and backward, median of {ROUNDS} rounds")
    print(f"{'network':<16}{'parameters':>12}{'dtype':>10}{'pictures/s':>12}{'ratio':>8}")
    for (name, dtype), case in cases.items():
        count = count_parameters(case.network)
        print(f"{name:<16}{count:>12,}{dtype:>10}{case.speed:>12.0f}{case.speed / base:>8.1f}")
