"""What can be chosen of how a network runs, and how a choice is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from couette.config import RuntimeConfig
from couette.errors import ConfigError
from couette.runtime.capturing import Captured
from couette.runtime.memory import keep_freed
from couette.validation import parse

Dtype = Literal["float32", "bfloat16"]
Layout = Literal["channels_last", "contiguous"]
_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class Repeated(nn.Module):
    """A block that a network has many of.

    Such blocks are compiled one by one, which takes a fraction of the time that the whole network
    would; and where memory is short, what they kept for the backward pass is computed again.
    """

    recomputed = False

    def __call__(self, *args: Any) -> Any:
        if not self.training:
            # Pictures are drawn in batches of many sizes, each of which would be compiled anew.
            return self._call_impl(*args)  # type: ignore[no-untyped-call]
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False)
        return super().__call__(*args)


@dataclass(frozen=True)
class Runtime:
    """The choices, and why. Kept in checkpoints, so that a resumed run takes the same path.

    device: "cpu", "cuda" or "mps". dtype: of convolutions and products; weights stay float32.
    threads: of the processor. compile: whether blocks are compiled when they first run. layout: of
    feature maps in memory. recompute: whether blocks run again in the backward pass instead of
    keeping their maps. why: the reason, in words. tf32: whether a card may round float32 products
    to ten bits. graph: whether kernels are recorded and replayed, on a card.
    """

    device: str = "cpu"
    dtype: Dtype = "float32"
    threads: int = 1
    compile: bool = False
    why: str = "asked for"
    layout: Layout = "channels_last"
    recompute: bool = False
    tf32: bool = True
    graph: bool = False

    def apply(self) -> None:
        """Set the process-wide parts: threads, on CUDA TF32, and what a device always asks for."""
        torch.set_num_threads(self.threads)
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        self._ready()

    def _ready(self) -> None:
        """Set what any network on the device needs of the process."""
        if self.device == "cpu":
            keep_freed()
        if self.device == "cuda":
            # cuDNN's backward pass of masked attention gives NaN where logits fall below -88:
            # https://github.com/pytorch/pytorch/issues/196678.
            torch.backends.cuda.enable_cudnn_sdp(False)

    @property
    def memory_format(self) -> torch.memory_format:
        return _FORMATS[self.layout]

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, its convolutions in the layout, and ready the device.

        Raises:
            ConfigError: blocks are to be recomputed, and it has none.
        """
        self._ready()
        blocks = [module for module in network.modules() if isinstance(module, Repeated)]
        if self.recompute and not blocks:
            raise ConfigError(
                f"The network {type(network).__name__} has no blocks that could be recomputed; "
                "leave out --runtime.recompute, or use another network, such as unet."
            )
        for block in blocks:
            block.recomputed = self.recompute
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def readied(self, network: nn.Module) -> nn.Module:
        """The network, to be compiled and recorded when it first runs, where that was chosen.

        It is compiled block by block where it has such; they are alike, so that few kernels serve
        all.
        """
        if self.compile:
            blocks = [module for module in network.modules() if isinstance(module, Repeated)]
            parts: list[nn.Module] = [*blocks] or [network]
            # All blocks of a class count as one function, compiled for each size among them.
            config = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, 4 * len(parts))
            for part in parts:
                part.compile(dynamic=False)
        return self.recorded(network)

    def recorded(self, network: nn.Module) -> nn.Module:
        """The network, its calls to be recorded where that was chosen."""
        if self.graph:
            network.forward = Captured(network)
        return network

    def autocast(self) -> AbstractContextManager[Any]:
        """The context a forward pass runs in."""
        if self.dtype == "float32":
            return nullcontext()
        # A recorded step can't refer to casts that were made before it.
        return torch.autocast(self.device, torch.bfloat16, cache_enabled=not self.graph)

    def wait(self) -> None:
        """Until the device has done what it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()

    @property
    def what(self) -> str:
        """The choices in words: "cpu, 2 threads, bfloat16, compiled"."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else self.device
        plural = "" if self.threads == 1 else "s"
        parts = [
            name,
            *([f"{self.threads} thread{plural}"] if self.device == "cpu" else []),
            self.dtype,
            *([] if self.layout == "channels_last" else [self.layout]),
            *(["compiled"] if self.compile else []),
            *(["CUDA graphs"] if self.graph else []),
            *(["blocks recomputed"] if self.recompute else []),
        ]
        return ", ".join(parts)

    def describe(self) -> str:
        """One line: "cpu, 2 threads, bfloat16: 1.8x as fast as float32 in a probe"."""
        return f"{self.what}: {self.why}"

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def asked(self) -> RuntimeConfig:
        """The settings that ask for these choices and no others.

        Raises:
            ConfigError: no such choices.
        """
        own = {name: value for name, value in self.state().items() if name not in ("why", "tf32")}
        own |= {name: "on" if own[name] else "off" for name in ("compile", "graph")}
        return parse(RuntimeConfig, own, "the saved runtime")


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
