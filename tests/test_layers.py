"""The house's floors: a module imports only from floors below its own.

Rules, read from the imports of every module, those inside functions included:

1. An import goes to a lower floor, or to another file of the same package. Neighbours on one
   floor do not import each other.
2. Floor 0 has steps of its own: a module there may import those of the steps below.
3. `couette/__init__.py`, the door, stands above all; only its `__version__` is for everyone.
4. Our own modules are imported at the top of a file. Inside functions only the door and the
   command line may do it, which keeps torch away from start-up, and the façade's own file, which
   keeps what trains away from what draws.
5. The files of a package do not import in a circle (imports for types alone aside).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import couette

ROOT = Path(couette.__file__).parent

GROUND: tuple[frozenset[str], ...] = (
    frozenset({"errors", "places", "contracts", "tensors"}),
    frozenset({"validation"}),
    frozenset({"config", "storage"}),
    frozenset({"registry", "runtime"}),
)
FLOORS: tuple[frozenset[str], ...] = (
    frozenset().union(*GROUND),
    frozenset({"schedules", "networks", "data", "render"}),
    frozenset({"denoiser", "codecs", "conditioners", "exact"}),
    frozenset({"model", "guidance", "samplers", "training", "runs"}),
    frozenset({"discrete", "interop"}),
    frozenset({"opening"}),
    frozenset({"generate"}),
    frozenset({"editing", "distillation", "evaluation"}),
    frozenset({"recipes", "figures", "laboratory"}),
    frozenset({"api"}),
    frozenset({"cli", "server"}),
    frozenset({"__main__"}),
)
DOOR, FACADE = "__init__", "api"
LATE = {DOOR, "cli", "server", "__main__"}
"""Who may import our own modules inside a function."""


@dataclass(frozen=True)
class Import:
    """One import of our own: from a file, of a module, where and how."""

    source: str
    target: str
    line: int
    late: bool
    types: bool


def part(module: str) -> str:
    """The floor's unit that a module belongs to: `samplers.heun` is of `samplers`."""
    return module.split(".")[0]


def height(name: str) -> tuple[int, int]:
    """Floor and, on the ground floor, step."""
    if name == DOOR:
        return len(FLOORS), 0
    for floor, parts in enumerate(FLOORS):
        if name in parts:
            step = next((i for i, names in enumerate(GROUND) if name in names), 0)
            return floor, step
    raise AssertionError(f"couette.{name} stands on no floor; give it one in tests/test_layers.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1]) if len(parts) > 1 and parts[-1] == DOOR else ".".join(parts)


def files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


MODULES = {module_of(path) for path in files()} | {
    module_of(path) for path in ROOT.glob("*/__init__.py")
}


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """What of our own an import names, without the leading `couette.`."""
    if isinstance(node, ast.Import):
        for each in node.names:
            if each.name == "couette" or each.name.startswith("couette."):
                yield each.name.partition(".")[2] or DOOR
        return
    assert node.level == 0, "imports are absolute"
    if node.module is None or node.module.split(".")[0] != "couette":
        return
    inside = node.module.partition(".")[2]
    for each in node.names:
        full = f"{inside}.{each.name}".lstrip(".")
        if full in MODULES:
            yield full
        elif inside:
            yield inside
        elif each.name != "__version__":
            yield DOOR


def imports(path: Path) -> list[Import]:
    source = module_of(path)
    found: list[Import] = []

    def visit(node: ast.AST, late: bool, types: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(Import(source, t, node.lineno, late, types) for t in targets(node))
        inner = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only = types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, inner, only)

    visit(ast.parse(path.read_text(encoding="utf-8")), late=False, types=False)
    return found


def breach(each: Import) -> str | None:
    """What is wrong with an import, or None."""
    mine, theirs = part(each.source), part(each.target)
    if mine in (DOOR, theirs):
        wrong = ""
    elif theirs == DOOR:
        wrong = "goes through the door, which stands above all"
    elif height(theirs)[0] > height(mine)[0]:
        wrong = f"goes up from floor {height(mine)[0]} to floor {height(theirs)[0]}"
    elif height(theirs) >= height(mine):
        wrong = f"goes sideways on floor {height(mine)[0]}"
    else:
        wrong = ""
    if not wrong and each.late and mine not in LATE and each.source != FACADE:
        wrong = "stands inside a function"
    return f"{each.source}:{each.line} imports {each.target}: it {wrong}" if wrong else None


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_imports_go_down(path: Path) -> None:
    assert [told for told in map(breach, imports(path)) if told] == []


def test_every_module_has_a_floor() -> None:
    for module in MODULES - {""}:
        height(part(module))


def test_no_circles() -> None:
    """The order that `graphlib` finds exists only where no file imports itself by a detour."""
    graph: dict[str, set[str]] = {}
    for path in files():
        edges = {e.target for e in imports(path) if not e.types and not e.late}
        graph[module_of(path)] = edges - {module_of(path)}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("source", "target", "late", "told"),
    [
        ("schedules", "denoiser", False, "goes up from floor 1 to floor 2"),
        ("training.trainer", "samplers.heun", False, "goes sideways on floor 3"),
        ("config", "registry", False, "goes sideways on floor 0"),
        ("model", "generate", True, "goes up"),
        ("recipes.session", DOOR, False, "goes through the door"),
        ("generate", "model", True, "stands inside a function"),
        ("samplers.heun", "samplers.moves", False, None),
        ("registry", "config", False, None),
        ("cli.train", "api", True, None),
        (DOOR, "api", True, None),
    ],
)
def test_the_rules_catch(source: str, target: str, late: bool, told: str | None) -> None:
    found = breach(Import(source, target, 1, late, types=False))
    assert found is None if told is None else told in str(found)


INTEROP_ONLY = {"diffusers", "transformers", "accelerate"}


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_only_interop_knows_other_libraries_of_the_field(path: Path) -> None:
    """And nothing needs torchvision, which has no build that pairs with every torch."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    assert "torchvision" not in names
    if part(module_of(path)) != "interop":
        assert not names & INTEROP_ONLY
