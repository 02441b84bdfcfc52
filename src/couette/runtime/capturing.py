"""CUDA graphs: kernels recorded once and replayed, so that launching them costs nothing.

A small network's step on a card takes as long as the processor needs to launch its hundreds of
kernels. Replayed, forward and backward are one launch each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

MOST = 4
"""Kinds of calls (shapes and dtypes of what is given) recorded of one network; others run as they
would without. Each keeps memory of its own."""


class Captured:
    """A network's `forward` that is recorded on a card and replayed.

    In training, forward and backward are recorded when it is first called; without gradients, after
    `WARM` calls alike. What can't be replayed runs as it would without: arguments that are no
    tensors, a second backward pass into the same gradients (they lie where the first replay wrote
    them, and the next would write them over), and a network of which a module says that it is
    `meddled` with: that more goes in or out than the arguments and the result.

    Args:
        network: whose `forward` is replaced: `network.forward = Captured(network)`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._forward = network.forward
        self._replays: dict[Any, Callable[..., Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Captured:
        """Of the copied network, with nothing recorded."""
        new = object.__new__(Captured)
        memo[id(self)] = new
        new._network = copy.deepcopy(self._network, memo)
        new._forward = copy.deepcopy(self._forward, memo)
        new._replays = {}
        return new

    def __call__(self, *given: Any) -> Any:
        values, form = tree_flatten(given)
        if not self._replayable(values):
            return self._forward(*given)
        shapes = tuple((v.shape, v.dtype, v.stride()) for v in values)
        low = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
        kind = (form, shapes, low, self._network.training)
        if kind not in self._replays:
            if len(self._replays) == MOST:
                return self._forward(*given)
            record = self._step if self._network.training else self._evaluation
            self._replays[kind] = record(values, form)
        return self._replays[kind](*values)

    def _replayable(self, values: list[Any]) -> bool:
        if not all(isinstance(v, Tensor) and v.is_cuda and not v.requires_grad for v in values):
            return False
        if self._network.training != torch.is_grad_enabled():
            return False
        if any(module.meddled for module in self._meddling):
            return False
        training = self._network.training
        return not training or all(p.grad is None for p in self._network.parameters())

    @cached_property
    def _meddling(self) -> list[Any]:
        return [module for module in self._network.modules() if hasattr(type(module), "meddled")]

    def _step(self, values: list[Tensor], form: Any) -> Callable[..., Any]:
        """The forward and backward passes of such a call."""
        inner = _Flat(self._network, self._forward, form)
        # Gradients come to weights that another stream, that of the recording, has met first.
        with suppress(AttributeError):
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        before = [buffer.clone() for buffer in self._network.buffers()]
        replay: Callable[..., Any] = torch.cuda.make_graphed_callables(
            inner, tuple(v.clone() for v in values), allow_unused_input=True
        )
        # The rounds that warm up move batch statistics.
        for buffer, value in zip(self._network.buffers(), before, strict=True):
            buffer.copy_(value)
        return replay

    def _evaluation(self, values: list[Tensor], form: Any) -> Callable[..., Any]:
        """The forward pass of such a call."""
        own = [v.clone() for v in values]
        forms: list[Any] = []

        def call() -> tuple[Tensor, ...]:
            found, made = tree_flatten(self._forward(*tree_unflatten(own, form)))
            forms[:] = [made]
            return tuple(found)

        recorded = Recorded(call)

        def replay(*values: Tensor) -> Any:
            for mine, value in zip(own, values, strict=True):
                mine.copy_(value)
            return tree_unflatten(recorded(), forms[0])

        return replay


class _Flat(nn.Module):
    """A network's `forward` that takes its tensors in a row."""

    def __init__(self, network: nn.Module, forward: Callable[..., Any], form: Any) -> None:
        super().__init__()
        self.network = network
        self._call, self._form = forward, form

    def forward(self, *values: Tensor) -> Any:
        return self._call(*tree_unflatten(list(values), self._form))


WARM = 2
"""Calls that run as they are, before the next is recorded: what is made once is made in them."""


class Recorded:
    """A call that changes tensors in place, recorded after `WARM` calls and then replayed.

    Args:
        call: reads and writes the same tensors each time, waits for nothing, and gives tensors.
    """

    def __init__(self, call: Callable[[], tuple[Tensor, ...]]) -> None:
        self._call, self._calls = call, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: tuple[Tensor, ...] = ()

    def __call__(self) -> tuple[Tensor, ...]:
        self._calls += 1
        if self._calls <= WARM:
            return tuple(found.clone() for found in self._call())
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._found = self._call()
        self._graph.replay()
        return tuple(found.clone() for found in self._found)


def replayed(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of one tensor on a card, without gradients: recorded for the first shape that it
    is called with after `WARM` calls, and replayed for that shape."""
    given: list[Tensor] = []

    def call() -> tuple[Tensor, ...]:
        return (function(given[0]),)

    recorded = Recorded(call)

    def replay(value: Tensor) -> Tensor:
        if not given:
            given.append(value.clone())
        if not value.is_cuda or value.shape != given[0].shape:
            return function(value)
        given[0].copy_(value)
        return recorded()[0]

    return replay
