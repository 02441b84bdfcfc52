"""The choice itself: from what was asked, what the machine has, and a short probe.

The probe begins with the plain way (float32, all threads) and tries one change after another; a
change is kept where the loss and its gradients agree with float32 and a training step is faster.
What it found is kept for the same network on the same machine with the same versions, all but the
number of threads, which depends on what else runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from couette import __version__, storage
from couette.config import RuntimeConfig
from couette.errors import ConfigError, CouetteError, Interrupted, StorageError
from couette.places import cache_dir
from couette.runtime.choices import Runtime

LOSS_TOLERANCE = 0.02
"""Largest relative error of the loss, against float32, of a change that is kept."""

GRADIENT_TOLERANCE = 0.1
"""Largest relative error of all gradients as one vector (Euclidean norm), likewise."""

_GAIN = 1.05
"""How much faster a change must be to be kept."""

_ROUNDS = 3
_PATIENCE = 20.0
"""Seconds after which the probe tries nothing more."""

LONG = {"cpu": 1200.0, "cuda": 300.0}
"""Seconds that a run must be expected to last before compiling is tried: it takes minutes on a
processor, half of one on a card."""


@dataclass(frozen=True)
class Trial:
    """What a probe tries.

    key: all that tells this training step from others, for what is remembered.
    build: a network laid out as a runtime says, its weights the same every time, and a function
        that gives the scalar loss of one small batch.
    lasts: seconds that the run will take, from those of one of the probe's steps.
    """

    key: str
    build: Callable[[Runtime], tuple[nn.Module, Callable[[], Tensor]]]
    lasts: Callable[[float], float] = lambda step: 0.0


def choose(
    config: RuntimeConfig,
    trial: Trial | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Runtime:
    """Decide, from the settings, the machine and a probe.

    Args:
        config: what was asked for; "auto" leaves a choice open. The mode "safe" leaves none:
            float32, nothing compiled. "fast" also compiles where the run is short.
        trial: what to probe; without it an open choice is the safe one.
        tell: called with what takes long, before it is begun.

    Raises:
        ConfigError: a device that this machine does not have.
    """
    base = _plain(config)
    if config.mode == "safe":
        return base
    if trial is None:
        # Nothing but networks that draw is run so; their calls are alike.
        return replace(base, graph=base.device == "cuda" and config.graph != "off")
    probe = _Probe(trial, base)
    changes = _changes(config, base)
    memory = _Memory(config, trial, base, changes)
    found = memory.found
    new = found is None
    if found is None:
        found = probe.best(base, changes)
    if memory.compiled is None and _compiles(config, base, trial, memory.step or probe.step):
        tell("Trying whether compiling makes training faster; this takes a minute or more.")
        with _silent_compiler():
            found = probe.best(found, [{"compile": True}], patient=True)
        memory.compiled, new = found.compile, True
    if new and not probe.hurried:
        memory.keep(found, memory.step or probe.step)
    threads = {"threads": 1}
    if base.device == "cpu" and base.threads > 1 and not config.threads:
        found = probe.best(found, [threads])
    return replace(found, why=probe.why(base, found, memory.found is not None))


def _plain(config: RuntimeConfig) -> Runtime:
    """What was asked for, and where nothing was, the safe choice."""
    device = device_of(config.device)
    safe = config.mode == "safe"
    fast_card = device == "cuda" and torch.cuda.is_bf16_supported() and not safe
    if config.graph == "on" and device != "cuda":
        raise ConfigError(
            f"CUDA graphs need a CUDA device, and this run is on '{device}'; leave out "
            "--runtime.graph."
        )
    named: dict[str, Any] = {"compile": config.compile == "on", "graph": config.graph == "on"}
    named |= {
        name: value for name in ("dtype", "layout") if (value := getattr(config, name)) != "auto"
    }
    why = "the safe choice on this device"
    if fast_card and config.dtype == "auto":
        named["dtype"], why = "bfloat16", "the card's fast arithmetic"
    elif config.dtype != "auto":
        why = "asked for"
    elif safe:
        why = "safe, as asked for"
    return Runtime(
        device=device,
        threads=config.threads or _threads(),
        why=why,
        recompute=config.recompute,
        tf32=not safe,
        **named,
    )


def device_of(asked: str) -> str:
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


def _changes(config: RuntimeConfig, base: Runtime) -> list[dict[str, Any]]:
    """What may be tried beside threads and compilation, in order."""
    able = torch.cpu.get_capabilities()
    here = able.get("avx512_bf16") or able.get("amx_bf16") or base.device != "cpu"
    changes: list[dict[str, Any]] = []
    if config.graph == "auto" and base.device == "cuda":
        # First, since launches hide what the others gain.
        changes.append({"graph": True})
    if config.dtype == "auto" and here:
        other = "bfloat16" if base.dtype == "float32" else "float32"
        changes.append({"dtype": other})
    if config.layout == "auto":
        changes.append({"layout": "contiguous"})
    return changes


def _compiles(config: RuntimeConfig, base: Runtime, trial: Trial, step: float) -> bool:
    """Whether compiling is worth a try: asked for, or the run is long enough to repay it."""
    if config.compile != "auto":
        return False
    return config.mode == "fast" or trial.lasts(step) >= LONG.get(base.device, LONG["cpu"])


_NAMES = {"compile": "compiled", "graph": "CUDA graphs"}


class _Probe:
    """Times training steps of one network and batch, run one way or another.

    Args:
        trial: what is run.
        base: the plain way, to which all else is compared.
    """

    def __init__(self, trial: Trial, base: Runtime) -> None:
        self._trial = trial
        self._exact = replace(base, dtype="float32", compile=False, graph=False, tf32=False)
        self._begun = time.monotonic()
        self.hurried = False
        self.dropped: list[str] = []
        self.ratio = 1.0
        self.step = 0.0

    def best(
        self, start: Runtime, changes: list[dict[str, Any]], *, patient: bool = False
    ) -> Runtime:
        """The start with each change that is right and makes a step faster."""
        found = start
        for change in changes:
            if not patient and time.monotonic() - self._begun > _PATIENCE:
                self.hurried = True
                break
            name = _NAMES.get(next(iter(change)), ", ".join(map(str, change.values())))
            candidate = replace(found, **change)
            try:
                # Other threads do the same arithmetic.
                agrees = "threads" in change or self._agrees(candidate)
                gain = self._gain(found, candidate) if agrees else 0.0
            except RuntimeError as error:  # no compiler, no such kernel, no memory
                _raise_stop(error)
                self.dropped.append(f"{name} failed")
                continue
            if not agrees:
                self.dropped.append(f"{name} was not exact enough")
            elif gain > _GAIN:
                found, self.ratio = candidate, self.ratio * gain
        return found

    def why(self, base: Runtime, found: Runtime, remembered: bool) -> str:
        """The reason for a choice, in words."""
        if found == base:
            reason = "nothing else was faster in a probe"
        elif self.ratio > 1:
            reason = f"{self.ratio:.1f}x as fast as {base.what} in a probe"
        else:
            reason = "found by an earlier probe"
        if remembered and self.ratio > 1:
            reason += " and an earlier one"
        return "; ".join((reason, *self.dropped))

    @cached_property
    def _answer(self) -> tuple[float, Tensor]:
        return _answer(self._trial, self._exact)

    def _agrees(self, candidate: Runtime) -> bool:
        exact, plain = self._answer
        loss, gradients = _answer(self._trial, candidate)
        error = abs(loss - exact) / max(abs(exact), 1e-8)
        distance = float((gradients - plain).norm() / plain.norm())
        # Not the other way round: what is not a number agrees with nothing.
        return error <= LOSS_TOLERANCE and distance <= GRADIENT_TOLERANCE

    def _gain(self, one: Runtime, other: Runtime) -> float:
        """How many times as fast the other is; both in turn, since machines slow down."""
        steps = [_step(self._trial, each) for each in (one, other)]
        for step in steps:
            step()
        times: list[list[float]] = [[], []]
        for _ in range(_ROUNDS):
            for step, seconds in zip(steps, times, strict=True):
                seconds.append(step())
        fastest = [min(seconds) for seconds in times]
        self.step = min(fastest)
        return fastest[0] / fastest[1]


@contextmanager
def _silent_compiler() -> Iterator[None]:
    """A compiler that fails is an answer, not pages of its traces."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _raise_stop(error: BaseException) -> None:
    """Raise the request to stop that a compiler took for a failure of its own, if it is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt | Interrupted):
            raise cause
        cause = cause.__cause__ or cause.__context__


def _built(trial: Trial, runtime: Runtime) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The trial's network, none of it silent.

    Layers that start as nothing hide what lies behind them, in the loss and from the gradients.
    """
    network, loss = trial.build(runtime)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in network.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.copy_(0.02 * torch.randn(parameter.shape))
    return network, loss


def _answer(trial: Trial, runtime: Runtime) -> tuple[float, Tensor]:
    """The loss and all gradients as one vector, float32 on the CPU."""
    runtime.apply()
    network, loss = _built(trial, runtime)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    # What else is random must be the same each time, and leave the caller's generator alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
    gradients = [
        (torch.zeros_like(p) if p.grad is None else p.grad).detach().float().cpu().flatten()
        for p in network.parameters()
    ]
    return float(value.detach()), torch.cat(gradients)


def _step(trial: Trial, runtime: Runtime) -> Callable[[], float]:
    """A training step without the optimizer's, which gives the seconds it took."""
    network, loss = _built(trial, runtime)

    def step() -> float:
        runtime.apply()
        runtime.wait()
        begun = time.perf_counter()
        loss().backward()  # type: ignore[no-untyped-call]
        runtime.wait()
        seconds = time.perf_counter() - begun
        network.zero_grad(set_to_none=True)
        return seconds

    return step


def machine() -> dict[str, Any]:
    """What of this machine a probe's answer depends on."""
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "able": sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True),
        "cards": cards,
        "torch": torch.__version__,
        "couette": __version__,
    }


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model")]
        return ", ".join(dict.fromkeys(names))
    except OSError:
        return platform.processor() or platform.machine()


_FORMAT = 2
_KEPT = ("dtype", "layout", "graph")


class _Memory:
    """What an earlier probe of this question answered, and where the answer is kept.

    found: the choice, None where there is none yet. compiled: whether compiling was the better
    choice, None where it was not tried. step: seconds of a step then.
    """

    def __init__(
        self, config: RuntimeConfig, trial: Trial, base: Runtime, changes: list[dict[str, Any]]
    ) -> None:
        asked = [_FORMAT, trial.key, machine(), config.model_dump(), base.state(), changes]
        name = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
        self._path = cache_dir() / "probes" / f"{name[:32]}.json"
        self.found: Runtime | None = None
        self.compiled: bool | None = None
        self.step = 0.0
        with suppress(CouetteError, LookupError, TypeError, ValueError, OSError):
            self._read(base, changes)

    def _read(self, base: Runtime, changes: list[dict[str, Any]]) -> None:
        kept = storage.read_json(self._path)
        chosen = {name: kept[name] for name in _KEPT}
        allowed = [getattr(base, name) for name in _KEPT] + [v for c in changes for v in c.values()]
        compiled, step = kept["compiled"], float(kept["step"])
        if all(value in allowed for value in chosen.values()) and compiled in (None, True, False):
            self.compiled, self.step = compiled, step
            self.found = replace(base, **chosen, compile=base.compile or bool(compiled))

    def keep(self, found: Runtime, step: float) -> None:
        """Keep an answer; where the cache can't be written, the next run probes again."""
        kept = {name: getattr(found, name) for name in _KEPT}
        with suppress(OSError, StorageError):
            storage.write_json(self._path, {**kept, "compiled": self.compiled, "step": step})
