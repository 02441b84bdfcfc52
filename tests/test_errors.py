from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couette import errors
from couette.errors import CouetteError, InputError, Interrupted, UnknownName, nearest


def tree(docstring: str) -> dict[str, int | None]:
    """Class names and exit codes as the module's docstring draws them."""
    drawn: dict[str, int | None] = {}
    for line in docstring.splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if line.startswith("    ") and words:
            drawn[words[0]] = int(words[1]) if words[1].isdecimal() else None
    return drawn


def classes() -> dict[str, type[CouetteError]]:
    found = vars(errors).values()
    return {c.__name__: c for c in found if isinstance(c, type) and issubclass(c, CouetteError)}


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = tree(errors.__doc__ or "")
    assert drawn.keys() == classes().keys()
    for name, code in drawn.items():
        if name == "Interrupted":
            assert code == Interrupted(2, "stopped").exit_code == 130
        else:
            assert classes()[name].exit_code == (2 if code is None else code)
            assert (code is None) == (classes()[name].__base__ is InputError)


def test_exit_code_of_sigterm() -> None:
    assert Interrupted(15, "stopped").exit_code == 143


def test_bad_input_is_also_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


def test_unknown_name_gives_the_nearest_or_all() -> None:
    known = ["heun", "ddpm"]
    assert str(UnknownName("sampler", "huen", known)) == (
        "There is no sampler 'huen'; did you mean 'heun'?"
    )
    assert str(UnknownName("sampler", "xyzzy", known)) == (
        "There is no sampler 'xyzzy'; choose one of: ddpm, heun."
    )


@pytest.mark.parametrize(
    ("given", "near"),
    [("Course_Basic", "course-basic"), ("LR", "lr"), ("weight-decay", "weight_decay")],
)
def test_case_and_dashes_do_not_matter(given: str, near: str) -> None:
    assert nearest(given, ["course-basic", "lr", "weight_decay"]) == near


@given(st.text(), st.lists(st.text(min_size=1)))
def test_nearest_is_one_of_the_known(given: str, known: list[str]) -> None:
    assert nearest(given, known) in [*known, None]
    for name in known:
        assert nearest(name, [name]) == name
