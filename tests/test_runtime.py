"""Where and in what arithmetic a network runs."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig, RuntimeConfig
from couette.contracts import Sizes
from couette.denoiser import build_denoiser
from couette.errors import ConfigError, Interrupted
from couette.networks import UNet, UNet2D
from couette.runtime import Repeated, Runtime, Trial, choose, evaluating
from couette.runtime.probe import LONG


def test_what_is_asked_for_is_taken() -> None:
    chosen = choose(RuntimeConfig(device="cpu", dtype="bfloat16", threads=3))
    assert chosen == Runtime("cpu", "bfloat16", 3, False, "asked for")
    assert chosen.describe() == "cpu, 3 threads, bfloat16: asked for"


def test_without_a_probe_the_safe_choice() -> None:
    assert choose(RuntimeConfig(device="cpu")).dtype == "float32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a card")
def test_a_device_that_is_not_here() -> None:
    with pytest.raises(ConfigError, match=r"no usable 'cuda' device; leave out"):
        choose(RuntimeConfig(device="cuda"))


def test_state_comes_back() -> None:
    chosen = Runtime(dtype="bfloat16", threads=2, why="x", compile=True, layout="contiguous")
    assert Runtime(**chosen.state()) == chosen
    assert choose(chosen.asked()).what == chosen.what


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_compile_as_older_files_have_it(given: bool | str, meant: str) -> None:
    assert RuntimeConfig(compile=given).compile == meant  # type: ignore[arg-type]


def test_safe_leaves_nothing_open_but_what_is_asked_for() -> None:
    chosen = choose(RuntimeConfig(mode="safe", device="cpu", layout="contiguous"))
    assert (chosen.dtype, chosen.layout, chosen.tf32) == ("float32", "contiguous", False)


def test_place_keeps_values_and_lays_convolutions_channels_last() -> None:
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    placed = Runtime().place(layer)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.weight, before)


_FAULTS = """
import resource, torch
from couette.runtime import Runtime
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = min(faults() for _ in range(5))
Runtime().place(torch.nn.Linear(1, 1))
print(before, min(faults() for _ in range(5)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps memory on Linux")
@pytest.mark.parametrize("other", [False, True])
def test_freed_memory_is_kept_where_nothing_else_was_asked_for(other: bool) -> None:
    """256 MB are mapped anew, page by page, until a network is placed, and then no more."""
    own = {"MALLOC_TRIM_THRESHOLD_": "131072"} if other else {}
    rest = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], env=rest | own, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    # Huge pages are fewer, but some there are.
    assert before > 100
    assert (after > before / 2) == other


def test_autocast_follows_the_dtype() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for dtype, wanted in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with Runtime(dtype=dtype).autocast():  # type: ignore[arg-type]
            assert layer(x).dtype == wanted


class Slow(nn.Linear):
    """A layer that is slow in float32, so that a probe has something to find."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            time.sleep(0.02)
        return super().forward(x)


class WrongForward(Slow):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.dtype == torch.float32 else 2 * y


class WrongBackward(Slow):
    """Right, but for its gradient in bfloat16: twice what it should be."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.dtype == torch.float32 else 2 * y - y.detach()


class Silent(nn.Module):
    """A layer that is wrong in bfloat16, behind one that starts as nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong, self.last = WrongForward(16, 16), nn.Linear(16, 16)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.wrong(x))  # type: ignore[no-any-return]


class TestProbe:
    @pytest.fixture(autouse=True)
    def _able(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        able = {"avx512_bf16": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
        monkeypatch.setenv("COUETTE_CACHE", str(tmp_path / "cache"))
        self.built: list[Runtime] = []

    def trial(self, make: Callable[[], nn.Module], lasts: float = 0.0) -> Trial:
        def build(chosen: Runtime) -> tuple[nn.Module, Callable[[], Tensor]]:
            self.built.append(chosen)
            torch.manual_seed(1)
            network, x, y = make(), torch.randn(64, 16), torch.randn(64, 16)

            def loss() -> Tensor:
                with chosen.autocast():
                    out: Tensor = network(x)
                return (out.float() - y).square().mean()

            return network, loss

        return Trial("key", build, lambda step: lasts)

    def choose(self, make: Callable[[], nn.Module], **asked: Any) -> Runtime:
        config = RuntimeConfig(**{"device": "cpu", "threads": 1, **asked})
        return choose(config, self.trial(make))

    def test_what_is_faster_and_right_is_taken(self) -> None:
        chosen = self.choose(lambda: Slow(16, 16))
        assert chosen.dtype == "bfloat16"
        assert re.search(r"[\d.]+x as fast as cpu, 1 thread, float32 in a probe", chosen.why)

    @pytest.mark.parametrize("wrong", [WrongForward, WrongBackward])
    def test_an_answer_that_is_off_rules_it_out(self, wrong: type[nn.Linear]) -> None:
        chosen = self.choose(lambda: wrong(16, 16))
        assert chosen.dtype == "float32"
        assert "bfloat16 was not exact enough" in chosen.why

    def test_what_is_hidden_behind_a_layer_of_zeros_is_seen(self) -> None:
        assert "bfloat16 was not exact enough" in self.choose(Silent).why

    def test_what_fails_is_not_taken(self) -> None:
        class Missing(Slow):
            def forward(self, x: Tensor) -> Tensor:
                if torch.is_autocast_enabled("cpu"):
                    raise RuntimeError("no such kernel")
                return super().forward(x)

        chosen = self.choose(lambda: Missing(16, 16))
        assert chosen.dtype == "float32"
        assert "bfloat16 failed" in chosen.why

    @pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(15, "stopped")])
    def test_a_request_to_stop_is_not_a_failed_probe(self, stop: BaseException) -> None:
        """Compilers wrap whatever is raised in them, without naming it as the cause."""

        class Stopped(Slow):
            def forward(self, x: Tensor) -> Tensor:
                if torch.is_autocast_enabled("cpu"):
                    try:
                        raise stop
                    except BaseException:
                        raise RuntimeError("the compiler failed") from None
                return super().forward(x)

        with pytest.raises(type(stop)):
            self.choose(lambda: Stopped(16, 16))

    def test_dropout_is_no_reason_to_rule_it_out(self) -> None:
        chosen = self.choose(lambda: nn.Sequential(Slow(16, 16), nn.Dropout(0.9)))
        assert chosen.dtype == "bfloat16"

    def test_safe_tries_nothing(self) -> None:
        assert self.choose(lambda: Slow(16, 16), mode="safe").dtype == "float32"
        assert not self.built

    def test_what_is_asked_for_is_not_tried(self) -> None:
        chosen = self.choose(lambda: Slow(16, 16), dtype="float32", layout="contiguous")
        assert chosen.what == "cpu, 1 thread, float32, contiguous"
        assert not self.built

    def test_an_answer_is_kept_for_the_same_question(self) -> None:
        first = self.choose(lambda: Slow(16, 16))
        self.built.clear()
        again = self.choose(lambda: Slow(16, 16))
        assert not self.built
        assert (again.dtype, again.layout) == (first.dtype, first.layout)
        assert again.why == "found by an earlier probe"
        self.choose(lambda: Slow(16, 16), mode="fast", compile="off")
        assert self.built

    def test_a_damaged_or_foreign_answer_is_not_used(self, tmp_path: Path) -> None:
        self.choose(lambda: Slow(16, 16))
        (kept,) = (tmp_path / "cache" / "probes").iterdir()
        for text in ("{", "[]", "{}", kept.read_text().replace("bfloat16", "float8")):
            kept.write_text(text)
            self.built.clear()
            assert self.choose(lambda: Slow(16, 16)).dtype == "bfloat16"
            assert self.built

    def test_a_cache_that_cannot_be_written_does_not_matter(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("COUETTE_CACHE", str(tmp_path / "file"))
        assert self.choose(lambda: Slow(16, 16)).dtype == "bfloat16"

    def test_threads_are_probed_every_time(self) -> None:
        before = torch.get_num_threads()

        class Crowded(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                time.sleep(0.01 * (torch.get_num_threads() - 1))
                return super().forward(x)

        try:
            torch.set_num_threads(2)
            for _ in range(2):
                torch.set_num_threads(2)
                chosen = self.choose(lambda: Crowded(16, 16), threads=None, dtype="float32")
                assert chosen.threads == (1 if (os.cpu_count() or 1) > 1 else chosen.threads)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # of the compiler's own
    @pytest.mark.parametrize(("mode", "lasts"), [("auto", 2 * LONG["cpu"]), ("fast", 0.0)])
    def test_compiling_is_tried_where_it_may_pay(self, mode: Any, lasts: float) -> None:
        class Many(Repeated):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(16, 16)

            def forward(self, x: Tensor) -> Tensor:
                for _ in range(300):  # a chain that a compiler makes one loop of
                    x = x * 1.001 + 0.001
                return self.inner(x).tanh()  # type: ignore[no-any-return]

        def make() -> nn.Module:
            return nn.Sequential(Many(), Many())

        # As the runtime builds a network: a trial that compiles where it is told to.
        trial = self.trial(make, lasts)
        config = RuntimeConfig(device="cpu", threads=1, dtype="float32", mode=mode)
        compiled = Trial("key", lambda r: _compiled(trial, r), trial.lasts)
        told: list[str] = []
        chosen = choose(config, compiled, told.append)
        assert chosen.compile
        assert ["compiling" in text for text in told] == [True]
        assert "compiled" in chosen.what
        self.built.clear()
        assert choose(config, compiled).compile
        assert not self.built


def _compiled(trial: Trial, chosen: Runtime) -> tuple[nn.Module, Callable[[], Tensor]]:
    network, loss = trial.build(chosen)
    chosen.readied(network)
    return network, loss


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_network_trains_alike_and_draws_uncompiled() -> None:
    """In float32, to what another order of operations may change."""
    torch.manual_seed(0)
    network = UNet2D(
        Sizes(1, 8, 8),
        block_out_channels=(8, 16),
        attention=(False, True),
        norm_num_groups=8,
        layers_per_block=1,
    )
    twin = Runtime(compile=True).readied(copy.deepcopy(network))
    x, told = torch.randn(2, 1, 8, 8), torch.rand(2)
    found = []
    for each in (network, twin):
        each.train()(x, told, {}).square().mean().backward()
        found.append([p.grad for p in each.parameters()])
    assert len(found[0]) > 50
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile"):
        for count in (1, 3, 5):
            twin.eval()(torch.randn(count, 1, 8, 8), torch.rand(count), {})


def test_short_runs_compile_nothing() -> None:
    network = UNet(Sizes(1, 8, 8), size="tiny", width=8)
    Runtime().readied(network)
    assert not any(part._compiled_call_impl for part in network.modules())


class TestRecomputing:
    def build(self, chosen: Runtime) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        network = chosen.place(UNet(Sizes(1, 16, 16), size="tiny", width=16, dropout=0.2))
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        return network, torch.randn(4, 1, 16, 16)

    def test_the_gradients_are_the_same_and_less_is_kept(self) -> None:
        kept: dict[bool, int] = {}
        gradients: dict[bool, list[Tensor]] = {}
        for recompute in (False, True):
            network, x = self.build(Runtime(recompute=recompute))
            sizes: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
            ):
                torch.manual_seed(3)  # of the dropout
                loss = network(x, torch.rand(4), {}).square().mean()
                kept[recompute] = sum(sizes)
            loss.backward()
            gradients[recompute] = [p.grad for p in network.parameters() if p.grad is not None]
        assert kept[True] < 0.5 * kept[False]
        assert len(gradients[True]) == len(gradients[False]) > 20
        for one, other in zip(gradients[True], gradients[False], strict=True):
            torch.testing.assert_close(one, other)

    def test_a_network_without_blocks_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no blocks that could be recomputed; leave out"):
            Runtime(recompute=True).place(nn.Conv2d(1, 1, 3))

    def test_a_copy_recomputes_its_own_blocks(self) -> None:
        """The running average is a copy: it must not run the blocks it was copied from."""
        network, x = self.build(Runtime(recompute=True))
        twin = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert twin(x, torch.rand(4), {}).abs().max() > 0


def test_both_layouts_give_the_same_answer() -> None:
    found = {}
    for layout in ("channels_last", "contiguous"):
        torch.manual_seed(0)
        chosen = Runtime(layout=layout)  # type: ignore[arg-type]
        network = UNet(Sizes(1, 16, 16), size="tiny", width=16)
        nn.init.normal_(network.leave.weight, std=0.1)
        chosen.place(network)
        seen: list[Tensor] = []
        network.enter.register_forward_hook(lambda _m, _x, out, seen=seen: seen.append(out))
        denoiser = build_denoiser(DiffusionConfig(), network, chosen)
        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            found[layout] = denoiser(x, torch.tensor(0.5, dtype=torch.float64), {}).x0
        assert seen[0].is_contiguous(memory_format=chosen.memory_format)
    torch.testing.assert_close(found["channels_last"], found["contiguous"])


def test_evaluating_gives_each_module_its_own_mode_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1))
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]
