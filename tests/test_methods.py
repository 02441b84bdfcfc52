"""docs/methods.md says what there is, and where others' names for it have gone."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

from couette.cli.list import FAMILIES
from couette.config import Spec
from couette.registry import SAMPLERS, SCHEDULES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import elsewhere  # noqa: E402
import markup  # noqa: E402
import methods  # noqa: E402


@pytest.fixture(scope="module")
def page() -> str:
    return methods.page()


def test_the_page_is_the_one_that_the_registries_give(page: str) -> None:
    assert methods.PAGE.read_text("utf-8") == page, (
        "docs/methods.md is older than the docstrings; run `python scripts/methods.py`."
    )


def test_every_family_has_a_chapter_and_every_part_a_section(page: str) -> None:
    assert methods.CHAPTERS.keys() == FAMILIES.keys()
    headings = [line for line in page.splitlines() if line.startswith("### ")]
    for registry in FAMILIES.values():
        kind = f"### {registry.kind.capitalize()} "
        named = [re.findall(r"`(.*?)`", line) for line in headings if line.startswith(kind)]
        assert sorted(name for line in named for name in line) == list(registry)


CHOSEN_BY_HAND = ("data", "worlds", "recipes", "figures")
"""Families of things, not of methods: what each is says when to take it."""


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - set(CHOSEN_BY_HAND)))
def test_a_method_says_once_when_to_use_it(family: str) -> None:
    for name in FAMILIES[family]:
        said = markup.prose(methods.read(inspect.getdoc(FAMILIES[family][name]) or "").body)
        assert said.count(f"\n\n**{markup.WHEN}:** ") == 1, (
            f"The docstring of '{name}' needs one sentence that begins with '{markup.WHEN}: '."
        )


def test_links_lead_to_headings(page: str) -> None:
    headings = re.findall(r"^#+ (.*)$", page, re.M)
    anchors = {markup.slug(each) for each in headings}
    links = re.findall(r"\]\(#(.*?)\)", page)
    assert len(links) >= len(methods.CHAPTERS) + len(list(SAMPLERS))
    assert set(links) <= anchors


def test_tables_are_even(page: str) -> None:
    """Each row of a table has as many cells as its head, a bar within a cell being escaped."""
    for block in page.split("\n\n"):
        if block.startswith("| "):
            widths = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
            assert len(widths) == 1, block


def test_a_docstring_is_taken_apart() -> None:
    said = methods.read(
        "Summary.\n\nMore | of it.\n\nArgs:\n    x, y: two\n        things.\n    z: one.\n\n"
        "Raises:\n    InputError: never.\n"
    )
    assert said.body == "Summary.\n\nMore | of it."
    assert said.arguments == {"x": "two things.", "y": "two things.", "z": "one."}
    assert methods.read("Alone.\n\nRaises:\n    InputError: never.").body == "Alone."


def test_lines_of_prose_begin_no_list() -> None:
    assert markup.wrap("- a") == "\\- a"
    assert markup.wrap("2. a") == "2\\. a"
    assert markup.wrap("-1 and −1") == "-1 and −1"


def schedulers() -> list[str]:
    """The samplers that the diffusers installed here offers; nothing where there is none."""
    try:
        from diffusers import schedulers
    except ImportError:
        return []
    return sorted(
        each for each in dir(schedulers) if re.fullmatch(r"\w+Scheduler|AysSchedules", each)
    )


def absent(names: dict[str, str]) -> set[str]:
    return {each for line in names for each in line.removesuffix(markup.AND).split(", ")}


@pytest.mark.parametrize("name", schedulers() or ["DDIMScheduler"])
def test_every_scheduler_of_diffusers_is_accounted_for(name: str) -> None:
    """Once: by what it is called here, or by why it is not."""
    pytest.importorskip("diffusers")
    here = {theirs.partition("(")[0] for theirs in SAMPLERS.theirs()}
    assert (name in here) != (name in absent(elsewhere.NOT_HERE))


def test_no_name_of_diffusers_is_made_up() -> None:
    pytest.importorskip("diffusers")
    named = " ".join((*SAMPLERS.theirs(), *elsewhere.NOT_HERE))
    assert set(re.findall(r"\w+Scheduler\b", named)) <= {*schedulers()}


def test_every_beta_schedule_of_diffusers_is_accounted_for() -> None:
    diffusers = pytest.importorskip("diffusers")
    files = Path(diffusers.schedulers.__file__).parent.glob("scheduling_*.py")
    values = {
        value
        for file in files
        for value in re.findall(r'beta_schedule == "(\w+)"', file.read_text("utf-8"))
    }
    assert "squaredcos_cap_v2" in values
    assert values <= {*SCHEDULES.theirs(), *absent(elsewhere.NO_SUCH_SCHEDULE)}


@pytest.mark.parametrize("combined", elsewhere.COMBINED)
def test_a_combined_label_is_a_sampler_and_a_grid(combined: str) -> None:
    sampler, grid = SAMPLERS.here(combined)
    assert Spec.model_validate(sampler).name in SAMPLERS
    assert grid == f"--grid {combined.split()[-1].lower()}"
