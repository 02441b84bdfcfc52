from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

import couette
import couette.recipes
from couette import registry
from couette.config import Spec, spec
from couette.errors import ConfigError, UnknownName, folded
from couette.registry import SAMPLERS, Registry

SOURCE = Path(couette.__file__).parent
ALL = {name: each for name, each in vars(registry).items() if isinstance(each, Registry)}


@pytest.fixture
def toys() -> Registry[Any]:
    """A registry of one function and one class."""
    made: Registry[Any] = Registry("toy")

    @made.register("top")
    def top(
        where: str,
        *,
        speed: Annotated[float, Field(gt=0)] = 1.5,
        turns: int = 3,
        way: Literal["left", "right"] = "left",
    ) -> tuple[Any, ...]:
        """Spins.

        At length."""
        return where, speed, turns, way

    @made.register("ball")
    class Ball:
        """Rolls."""

        def __init__(self, where: str, *, colors: tuple[str, ...], weight: float | None = None):
            self.given = where, colors, weight

    @made.register("stone")
    class Stone:
        """Has no settings, and no constructor of its own."""

    return made


class TestRegistry:
    def test_names_are_sorted(self, toys: Registry[Any]) -> None:
        assert list(toys) == ["ball", "stone", "top"]
        assert "top" in toys and "tpo" not in toys

    def test_settings_are_the_keyword_only_parameters(self, toys: Registry[Any]) -> None:
        fields = toys.settings("top").model_fields
        assert {name: field.default for name, field in fields.items()} == {
            "speed": 1.5,
            "turns": 3,
            "way": "left",
        }
        assert list(toys.settings("ball").model_fields) == ["colors", "weight"]
        assert toys.settings("ball").model_fields["colors"].is_required()
        assert not toys.settings("stone").model_fields

    def test_settings_are_frozen(self, toys: Registry[Any]) -> None:
        settings: BaseModel = toys.settings("top")()
        with pytest.raises(ValidationError, match="frozen"):
            settings.speed = 2.0  # type: ignore[attr-defined]

    def test_text_is_converted(self, toys: Registry[Any]) -> None:
        given = Spec.model_validate("top:speed=2,turns=4,way=right")
        assert toys.build(given, "here") == ("here", 2.0, 4, "right")
        assert toys.bind(given)("there") == ("there", 2.0, 4, "right")
        assert toys.check(spec("top")) == {"speed": 1.5, "turns": 3, "way": "left"}

    def test_classes_are_built(self, toys: Registry[Any]) -> None:
        built = toys.build(spec("ball", colors=["red", "blue"]), "here")
        assert built.given == ("here", ("red", "blue"), None)
        assert type(toys.build(spec("stone"))).__name__ == "Stone"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("top:sped=2", "no setting 'sped' in toy 'top'; did you mean 'speed'"),
            ("top:zzz=2", "no setting 'zzz' in toy 'top'; it has speed, turns, way"),
            ("stone:zzz=2", "it has none"),
            ("top:speed=0", "speed takes a number greater than 0, not '0'"),
            ("top:turns=2.5", "turns takes a whole number, not '2.5'"),
            ("top:way=up", "'left' or 'right'"),
            ("top:speed=nan", "finite number"),
            ("ball", "'colors' is missing in toy 'ball'"),
            ("top:where=there", "no setting 'where'"),
        ],
    )
    def test_bad_settings_are_refused(self, toys: Registry[Any], given: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            toys.check(Spec.model_validate(given))

    def test_unknown_names_are_refused(self, toys: Registry[Any]) -> None:
        with pytest.raises(UnknownName, match="no toy 'bal'; did you mean 'ball'"):
            toys.build(spec("bal"))

    def test_a_name_is_given_once(self, toys: Registry[Any]) -> None:
        with pytest.raises(ConfigError, match="registered twice"):
            toys.register("top")(print)

    def test_summary_is_the_first_line(self, toys: Registry[Any]) -> None:
        assert toys.summary("top") == "Spins."


@pytest.fixture
def known() -> Registry[Any]:
    """A registry whose parts have names elsewhere, some of them ending in a hat's."""
    hats: Registry[Any] = Registry("hat")
    hats.register("bowler", known_as=("Chapeau Melon",))(print)
    hats.register("bowler-too", known_as=("Chapeau Melon",))(print)
    made: Registry[Any] = Registry("toy", {"hat": hats})
    made.register("top", known_as=("Kreisel",), variants={"turns=2": ("Kreisel a", "doppel_k")})(
        print
    )
    return made


class TestNamesElsewhere:
    @pytest.mark.parametrize(
        ("given", "here"),
        [
            ("Kreisel", "'top' here."),
            ("kreisel", "'top' here."),
            ("TOP", "'top' here."),
            ("kreisel_a", "'top:turns=2' here."),
            ("Doppel K", "'top:turns=2' here."),
            ("Kreisel Chapeau Melon", "'top' here (with --hat bowler)."),
            ("doppel_k chapeau-melon", "'top:turns=2' here (with --hat bowler)."),
            ("Top Chapeau Melon", "'top' here (with --hat bowler)."),
        ],
    )
    def test_say_what_to_write_here(self, known: Registry[Any], given: str, here: str) -> None:
        with pytest.raises(UnknownName) as caught:
            known[given]
        assert str(caught.value) == f"There is no toy '{given}'; it is called {here}"

    @pytest.mark.parametrize(
        "given", ["Kreise", "Chapeau Melon", " Chapeau Melon", "Kreisel Bowler"]
    )
    def test_are_taken_whole(self, known: Registry[Any], given: str) -> None:
        with pytest.raises(UnknownName, match=r"did you mean|choose one of: top"):
            known[given]

    @pytest.mark.parametrize(
        ("given", "here"),
        [
            ("DPM++ 2M Karras", "it is called 'dpmpp-2m' here (with --grid karras)."),
            ("DPMSolverMultistepScheduler", "it is called 'dpmpp-2m' here."),
            ("sample_dpmpp_2m", "it is called 'dpmpp-2m' here."),
            ("DPM++ 2M SDE Heun", "it is called 'dpmpp-2m-sde:form=heun' here."),
            ("Euler a", "it is called 'euler-ancestral' here."),
        ],
    )
    def test_of_samplers(self, given: str, here: str) -> None:
        with pytest.raises(UnknownName) as caught:
            registry.SAMPLERS.check(Spec.model_validate(given))
        assert str(caught.value).endswith(here)


NEEDED = {"betas": {"values": (0.1, 0.2)}}
"""Settings without which a part is nothing."""


@pytest.mark.parametrize("family", list(ALL))
class TestEveryFamily:
    def test_a_name_elsewhere_is_of_one_part_and_can_be_written_here(self, family: str) -> None:
        parts, owners = ALL[family], dict[str, str]()
        for theirs, here in parts.theirs().items():
            asked = Spec.model_validate(here)
            parts.check(asked.with_settings(**NEEDED.get(asked.name, {})))
            assert owners.setdefault(folded(theirs), here) == here

    def test_has_parts_each_with_a_summary_and_settings(self, family: str) -> None:
        parts = ALL[family]
        assert list(parts)
        for name in parts:
            assert parts.summary(name).strip()
            assert parts.settings(name).model_json_schema()["type"] == "object"

    def test_the_defaults_satisfy_their_own_limits(self, family: str) -> None:
        for name in ALL[family]:
            model = ALL[family].settings(name)
            if not any(field.is_required() for field in model.model_fields.values()):
                model.model_validate(model().model_dump())


FORBIDDEN = {"eval", "exec", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Whatever turns a file's bytes or names into code."""


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.name)
def test_nothing_is_imported_by_a_string_or_unpickled(path: Path) -> None:
    """`import_module` appears once, in the command line, on a name of its own closed table."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {each.name.split(".")[0] for each in node.names} & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
    for call in calls(tree):
        name = ast.unparse(call.func)
        assert name not in FORBIDDEN
        assert name not in ("torch.load", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load")
        if name.endswith("import_module"):
            assert path.relative_to(SOURCE) == Path("cli/__init__.py")


def test_a_brief_spec_names_what_is_not_usual() -> None:
    asked = SAMPLERS.explicit(spec("edm", s_churn=10.0))
    assert str(SAMPLERS.brief(asked)) == "edm:s_churn=10.0"
    assert str(SAMPLERS.brief(SAMPLERS.explicit(spec("heun")))) == "heun"
