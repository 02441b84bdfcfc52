"""Training speed at equal work: our network and diffusers' UNet2DModel, batch 128 on 28×28.

Every case is a whole training step on gray pictures: data, noise, forward, backward, optimizer, and
for ours the running average and the log of noise levels. Forward passes cost the same to 5 %.
diffusers is timed as its course trains it (float32, contiguous, Adam) and with what it offers to be
faster (channels_last; bfloat16 where the machine has it; with COMPILE=1 compiled, too, and on a
card its kernels recorded). Goals: four times the former, twice the latter.

SIDE=64 takes larger networks (28 GFLOP) on 64×64 instead, for a card; PROFILE=1 then says where
our step goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.networks import (
    COURSE,
    DEVICE,
    WIDE,
    data_folder,
    diffusers_network,
    diffusers_steps,
    forward_flops,
    low_precision,
    session,
    steps_of,
)
from benchmarks.timing import Apart, Case, Goal, interleaved, ratio, report
from couette.runtime import evaluating

BATCH = int(os.environ.get("BATCH", "128"))
ROUNDS = int(os.environ.get("ROUNDS", "7"))
SIDE = int(os.environ.get("SIDE", "28"))
COMPILE = bool(os.environ.get("COMPILE"))
AT_ONCE = int(os.environ.get("AT_ONCE", "1" if DEVICE == "cpu" else "10"))
"""Steps that are timed as one: a card is waited for at their end."""

SIZE, THEIRS = {28: ("base", COURSE), 64: ("large", WIDE)}[SIDE]


def peak(dtype: torch.dtype, layout: torch.memory_format = torch.channels_last) -> float:
    """GFLOP a second of a 3×3 convolution, forward: on a processor of 64 channels on 14×14 maps, on
    a card of 512 on 32×32."""
    channels, side = (64, 14) if DEVICE == "cpu" else (512, 32)
    layer = nn.Conv2d(channels, channels, 3, padding=1, device=DEVICE, dtype=dtype)
    # torch's stubs know no `to` with a layout alone.
    layer = layer.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(BATCH, channels, side, side, device=DEVICE, dtype=dtype)
    x = x.contiguous(memory_format=layout)
    work = 2 * 9 * channels**2 * side**2 * BATCH / 1e9
    with torch.no_grad():
        return fastest(lambda: layer(x), work)


def product_peak(dtype: torch.dtype, side: int = 8192) -> float:
    """GFLOP a second of a product of two square matrices."""
    one, other = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    return fastest(lambda: one @ other, 2 * side**3 / 1e9)


def fastest(call: Callable[[], Any], work: float) -> float:
    """Work a second, of the median of nine."""

    def calls() -> None:
        for _ in range(AT_ONCE):
            call()

    case = Case("", calls, work * AT_ONCE)
    interleaved([case], 9, 3)
    return case.speed


def ours() -> dict[str, Any]:
    """Our runs, by name."""
    folder = data_folder(4096, SIDE)
    given: dict[str, Any] = {"training": {"batch": BATCH}}
    network = {"name": "unet", "size": SIZE}
    runs: dict[str, dict[str, Any]] = {
        "ours": {"network": network},
        "ours, AdamW": {"network": network, "training": {"batch": BATCH, "optimizer": "adamw"}},
    }
    if SIDE == 28:
        runs["our UNet2D"] = {"recipe": "course-unet"}
    if DEVICE == "cuda":
        runs["ours, nothing recorded"] = {"network": network, "runtime": {"graph": "off"}}
    if COMPILE:
        runs["ours, compiled"] = {"network": network, "runtime": {"compile": "on"}}
    return {name: session(folder, **{**given, **settings}) for name, settings in runs.items()}


def theirs(bf16: bool) -> dict[str, Callable[[], None]]:
    """Steps of diffusers' network, by name, in processes of their own."""
    last: dict[str, Any] = {"layout": torch.channels_last, "tuned": True}
    variants: dict[str, dict[str, Any]] = {
        "diffusers, as published": {},
        "diffusers, channels_last": last,
    }
    if bf16:
        variants["diffusers, bfloat16"] = {**last, "bf16": True}
    if COMPILE:
        low = {**last, "bf16": bf16}
        variants["diffusers, compiled"] = {**low, "compiled": "default"}
        if DEVICE == "cuda":
            recorded = {**low, "compiled": "reduce-overhead"}
            variants["diffusers, compiled and recorded"] = recorded
    return {name: Apart(their_steps, how) for name, how in variants.items()}


def their_steps(how: dict[str, Any]) -> Callable[[], None]:
    """As many steps of diffusers' network as are timed at once; settings of `diffusers_steps`, and
    "compiled", the compiler's mode."""
    network = diffusers_network(THEIRS)
    rest = {name: value for name, value in how.items() if name != "compiled"}
    if "compiled" in how:
        network.compile(mode=how["compiled"])
    return repeated(diffusers_steps(network, torch.rand(4096, 1, SIDE, SIDE), BATCH, **rest))


def run() -> None:
    """Time all, print the table."""
    bf16 = low_precision()
    x, told = torch.zeros(1, 1, SIDE, SIDE, device=DEVICE), torch.zeros(1, device=DEVICE)
    cases = []
    runs = ours()
    for name, each in runs.items():
        network = each.models["weights"].network
        label = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        cond = {"label": label} if "label" in network.wants else {}
        with evaluating(network):
            cost = forward_flops(network, x, told, cond) / 1e9
        facts = {"GFLOP": cost, "how": each.runtime.what}
        cases.append(Case(name, repeated(steps_of(each)), BATCH * AT_ONCE, facts))
    cost = forward_flops(diffusers_network(THEIRS), x, 0) / 1e9
    for name, step in theirs(bf16).items():
        cases.append(Case(name, step, BATCH * AT_ONCE, {"GFLOP": cost}))
    interleaved(cases, ROUNDS, warm=2)
    best = max((case for case in cases if "diffusers" not in case.name), key=lambda c: c.speed)
    if os.environ.get("PROFILE"):
        print(best.name)
        profiled(best.step)
    peaks = {f"convolution {'bfloat16' if bf16 else 'float32'}": peak(_dtype(bf16))}
    if DEVICE == "cuda":
        peaks["product bfloat16"] = product_peak(torch.bfloat16)
    published = next(case for case in cases if case.name.endswith("published"))
    tuned = max((case for case in cases if "diffusers" in case.name), key=lambda case: case.speed)
    where = f"training on {'a GPU' if DEVICE == 'cuda' else 'a processor'}, {SIDE} px"
    report(
        "train_speed",
        rows(cases, peaks, published, tuned),
        {"threads": torch.get_num_threads(), **peaks},
        [
            Goal(f"{where}: diffusers as published", ratio(best, published)[0], 4),
            Goal(f"{where}: diffusers tuned", ratio(best, tuned)[0], 2),
        ],
    )


def rows(
    cases: list[Case], peaks: dict[str, float], published: Case, tuned: Case
) -> list[dict[str, Any]]:
    """The table: speeds, and how many times as fast as diffusers as published and at its best."""
    found = []
    for case in cases:
        work = 3 * case.facts["GFLOP"] * case.speed
        found.append(
            {
                "case": case.name,
                "GFLOP": case.facts["GFLOP"],
                "pictures/s": case.speed,
                "spread": case.spread,
                "GFLOP/s": work,
                **{f"of peak {name}": work / value for name, value in peaks.items()},
                "to published": ratio(case, published)[0],
                "±": ratio(case, published)[1],
                "to tuned": ratio(case, tuned)[0],
                "how": case.facts.get("how"),
            }
        )
    return found


def repeated(step: Callable[[], Any]) -> Callable[[], None]:
    """A step, as often as are timed at once."""

    def steps() -> None:
        for _ in range(AT_ONCE):
            step()

    return steps


def profiled(step: Callable[[], Any]) -> None:
    """Print where the time of some steps goes."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=kinds) as seen:
        step()
        torch.cuda.synchronize() if DEVICE == "cuda" else None
    by = "self_cuda_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60))


def _dtype(bf16: bool) -> torch.dtype:
    return torch.bfloat16 if bf16 else torch.float32
