"""A module of torch as a graph of ONNX: written by torch, and checked against it by onnxruntime.

It knows nothing of models: what is written, and what is told about it, `to_onnx.py` says.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from couette.errors import CouetteError, InputError

NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
"""The version of ONNX's operators that the graphs are written in."""

AGREES = 1e-3
"""Largest difference from the network in torch, of its largest output, that is let pass."""

_LARGEST = 2_000_000_000
"""Bytes of weights beyond which one file can't hold a graph."""


class Input(NamedTuple):
    """One of a graph's inputs, by example, (B, …)."""

    name: str
    example: Tensor

    @property
    def described(self) -> dict[str, Any]:
        """What a program that gives it must know."""
        dtype = str(self.example.dtype).removeprefix("torch.")
        return {"name": self.name, "dtype": dtype, "shape": ["batch", *self.example.shape[1:]]}


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


class Graph(NamedTuple):
    """A graph as a file. error: its largest difference from torch, of the largest output."""

    data: bytes
    described: dict[str, Any]
    error: float


def graph(module: nn.Module, inputs: Sequence[Input], output: str) -> Graph:
    """A module as ONNX, checked on batches of three sizes.

    Args:
        module: on the CPU, in float32.
        inputs: in the order in which it takes them, two rows of each.
        output: the name of what it gives.

    Raises:
        InputError: it is too large for one file.
        CouetteError: torch can't write it, or onnxruntime computes something else.
    """
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    if size > _LARGEST:
        raise InputError(
            f"The weights take {size / 1e9:.1f} GB, and a file of ONNX holds 2 GB; write the model "
            "with --format couette."
        )
    data = _written(module.eval(), inputs, output)
    session = _session(data)
    error = max(_difference(module, session, inputs, batch) for batch in (2, 1, 3))
    if not error <= AGREES:
        raise CouetteError(
            f"Nothing was written: what onnxruntime computes differs from torch by {error:.1e} of "
            f"the largest output, where {AGREES:g} is let pass; write the model with --format "
            "couette."
        )
    described = {
        "inputs": [i.described for i in inputs],
        "output": output,
        "opset": OPSET,
        "error": error,
    }
    return Graph(data, described, error)


def _written(module: nn.Module, inputs: Sequence[Input], output: str) -> bytes:
    """A module as a file of ONNX, any number of rows."""
    batch = torch.export.Dim("batch")
    rows = [{0: batch} for _ in inputs]
    # Those that the module takes as `*given` stand in a tuple of their own.
    kinds = [each.kind for each in inspect.signature(module.forward).parameters.values()]
    named = len(kinds) - kinds.count(inspect.Parameter.VAR_POSITIONAL)
    shapes = (*rows[:named], tuple(rows[named:])) if rows[named:] else tuple(rows)
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


def _session(data: bytes) -> Any:
    """onnxruntime's, of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _difference(module: nn.Module, session: Any, inputs: Sequence[Input], batch: int) -> float:
    """The largest difference between onnxruntime and torch on `batch` rows, of the largest
    output."""
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
