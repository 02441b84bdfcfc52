"""Where and in what arithmetic a network runs: device, dtype, memory layout, threads.

Decided in one place, from what the machine has and, where the processor leaves a choice, from a
short probe of this very network, and said in one line. Weights and their average stay float32;
a lower dtype is used through autocast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from couette.config import RuntimeConfig
from couette.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]
_TOLERANCE = 0.08
"""Largest relative error of a bfloat16 forward pass against float32 that the probe accepts."""


@dataclass(frozen=True)
class Runtime:
    """The choices, and why. Kept in checkpoints, so that a resumed run takes the same path."""

    device: str = "cpu"
    dtype: Dtype = "float32"
    threads: int = 1
    compile: bool = False
    why: str = "asked for"

    def apply(self) -> None:
        """Set the process-wide parts: threads, and TF32 on CUDA."""
        torch.set_num_threads(self.threads)
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, its convolutions in channels_last."""
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def autocast(self) -> AbstractContextManager[Any]:
        """The context a forward pass runs in."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def describe(self) -> str:
        """One line: "cpu, 2 threads, bfloat16: 1.8x as fast as float32 on 2 in a probe"."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else self.device
        plural = "" if self.threads == 1 else "s"
        threads = f", {self.threads} thread{plural}" if self.device == "cpu" else ""
        return f"{name}{threads}, {self.dtype}: {self.why}"

    def state(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: no dropout, no batch statistics moved. Each module then gets
    back its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def choose(
    config: RuntimeConfig,
    probe: Callable[[], tuple[nn.Module, Callable[[], Tensor]]] | None = None,
) -> Runtime:
    """Decide, from the settings, the machine and a probe.

    Args:
        config: what was asked for; "auto" leaves the choice open.
        probe: makes a network and a function that returns a scalar loss of it, both on the CPU;
            run forward and backward in float32 and bfloat16 where the dtype is open on a CPU.

    Raises:
        ConfigError: a device that this machine does not have.
    """
    device = _device(config.device)
    threads = config.threads or _threads()
    if device == "cpu" and probe is not None:
        dtypes = _dtypes(config)
        counts = [threads] if config.threads or threads == 1 else [threads, 1]
        if len(dtypes) * len(counts) > 1:
            return _fastest(*probe(), dtypes, counts, config.compile)
    if config.dtype != "auto":
        return Runtime(device, config.dtype, threads, config.compile, "asked for")
    if device == "cuda" and torch.cuda.is_bf16_supported():
        return Runtime(device, "bfloat16", threads, config.compile, "the card's fast arithmetic")
    return Runtime(device, "float32", threads, config.compile, "the safe choice on this device")


def _device(asked: str) -> str:
    here: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if asked == "auto":
        return "cuda" if here["cuda"]() else "cpu"
    if not here[asked]():
        raise ConfigError(
            f"This machine has no usable '{asked}' device; leave out --runtime.device, or give "
            "cpu. `couette doctor` shows what is here."
        )
    return asked


def _threads() -> int:
    """The cores this process may use, at most what torch would take."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(torch.get_num_threads(), usable or 1))


def _dtypes(config: RuntimeConfig) -> list[Dtype]:
    """The dtypes to try on a processor: bfloat16 only where it multiplies that itself."""
    if config.dtype != "auto":
        return [config.dtype]
    able = torch.cpu.get_capabilities()
    has = able.get("avx512_bf16") or able.get("amx_bf16")
    return ["float32", "bfloat16"] if has else ["float32"]


def _fastest(
    network: nn.Module,
    loss: Callable[[], Tensor],
    dtypes: list[Dtype],
    counts: list[int],
    compile: bool,
) -> Runtime:
    """Time a training step with each dtype and number of threads; the fastest that is right.

    Fewer threads win where other programs keep a core busy: a step waits for its slowest thread.
    """
    dropped = [each for each in dtypes if each == "bfloat16" and not _agrees(loss)]
    times: dict[tuple[Dtype, int], float] = {}
    for threads in counts:
        torch.set_num_threads(threads)
        for dtype in dtypes:
            if dtype not in dropped:
                times[dtype, threads] = _step_time(network, loss, dtype)
    best = min(times, key=lambda choice: times[choice])
    worst = max(times, key=lambda choice: times[choice])
    ratio = times[worst] / times[best]
    why = f"{ratio:.1f}x as fast as {worst[0]} on {worst[1]} in a probe"
    if dropped:
        why += "; bfloat16 was not exact enough"
    return Runtime("cpu", best[0], best[1], compile, why)


def _step_time(network: nn.Module, loss: Callable[[], Tensor], dtype: Dtype) -> float:
    """Mean seconds of a few training steps, after one to warm up."""
    runtime = Runtime(dtype=dtype)

    def step() -> float:
        begun = time.perf_counter()
        with runtime.autocast():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        return time.perf_counter() - begun

    first = step()
    count = 4 if first < 0.3 else 1
    return sum(step() for _ in range(count)) / count


def _agrees(loss: Callable[[], Tensor]) -> bool:
    """Whether the loss in bfloat16 is within the tolerance of the loss in float32."""

    def seeded() -> Tensor:
        # Dropout must draw the same in both dtypes, and leave the caller's generator alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return loss()

    with torch.no_grad():
        exact = seeded()
        with torch.autocast("cpu", torch.bfloat16):
            error = abs(float((seeded() - exact) / exact.abs().clamp_min(1e-8)))
    return error < _TOLERANCE
