"""`make docs`: write docs/methods.md, every method there is, from the registries.

    python scripts/methods.py

A part's text is its docstring, its settings are its signature, and its facts are the traits that it
declares. Only what has no part to stand at is written here: the chapters, and what others have and
this project doesn't.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import couette.codecs
import couette.data
import couette.denoiser.losses
import couette.denoiser.parameterizations
import couette.denoiser.times
import couette.denoiser.told
import couette.denoiser.weightings
import couette.exact.worlds
import couette.figures
import couette.guidance
import couette.guidance.thresholds
import couette.networks
import couette.recipes
import couette.samplers
import couette.schedules
import couette.schedules.grids
import couette.training.pairings
from couette.cli.list import FAMILIES
from couette.contracts import Objective
from couette.registry import GRIDS, SAMPLERS, SCHEDULES, Registry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
WIDTH = 100

CHAPTERS: Mapping[str, object] = {
    "samplers": couette.samplers,
    "grids": couette.schedules.grids,
    "schedules": couette.schedules,
    "parameterizations": couette.denoiser.parameterizations,
    "weightings": couette.denoiser.weightings,
    "losses": couette.denoiser.losses,
    "times": couette.denoiser.times,
    "pairings": couette.training.pairings,
    "told": couette.denoiser.told,
    "objectives": Objective,
    "guiders": couette.guidance,
    "thresholds": couette.guidance.thresholds,
    "networks": couette.networks,
    "codecs": couette.codecs,
    "data": couette.data,
    "worlds": couette.exact.worlds,
    "recipes": couette.recipes,
    "figures": couette.figures,
}
"""Each family of `couette list`, and whose docstring introduces it."""

COMBINED = (
    "LMS Karras",
    "DPM2 Karras",
    "DPM2 a Karras",
    "DPM++ 2S a Karras",
    "DPM++ 2M Karras",
    "DPM++ SDE Karras",
    "DPM++ 2M SDE Karras",
    "DPM++ 2M SDE Exponential",
    "DPM++ 2M SDE Heun Karras",
    "DPM++ 2M SDE Heun Exponential",
    "DPM++ 3M SDE Karras",
    "DPM++ 3M SDE Exponential",
)
"""Labels of the web UI that name a sampler and a grid at once."""

NOT_HERE: Mapping[str, str] = {
    "AysSchedules": "times for given models: write them out, `--grid given:times=(…)`",
    "BlockRefinementScheduler": "edits text block by block; `maskgit` lifts masks by confidence",
    "CMStochasticIterativeScheduler, ConsistencyDecoderScheduler, FlowMapEulerDiscreteScheduler, "
    "FlowMatchLCMScheduler, HeliosDMDScheduler, LCM, LCMScheduler, PiflowScheduler, SCMScheduler, "
    "TCDScheduler, lcm": "for models distilled to few steps, which predict no posterior mean",
    "DPMSolverMultistepInverseScheduler": "of inversions there is `ddim-inverse` only",
    "EntropyBoundScheduler": "`maskgit` lifts a fixed share a step, whatever the entropy",
    "FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)": "draws all its noise anew each "
    "step, as distilled models are sampled",
    "HeliosScheduler": "samples a pyramid of resolutions, for the one model made for it",
    "LTXEulerAncestralRFScheduler": "splits old noise and new by sigma alone; `euler-ancestral` "
    "does so by sigma/alpha, as the reverse chain does",
    "RFD4ProteinaScheduler": "for proteins, at a lowered temperature",
    "RePaintScheduler": "fills in parts of a picture: an editor, not a sampler",
    "ScoreSdeVeScheduler": "`langevin` has its corrector, with an ancestral step before it",
    "ScoreSdeVpScheduler": "Euler and Maruyama's method; `ddpm` draws from a step's posterior",
    "VQDiffusionScheduler": "masks and chance in one chain; `categorical` has either",
    "DPM adaptive, dpm_adaptive, sample_dpm_adaptive": "`dopri5` and `bosh3` choose their steps",
    "DPM fast, dpm_fast, sample_dpm_fast": "its steps of changing order; use `dpmpp-3m`",
    "DDIM CFG++, euler_cfg_pp, dpmpp_2m_cfg_pp and their like": "CFG++ goes with any sampler here: "
    "`--guider cfg++`",
    "exp_heun_2_x0, heunpp2, seeds_2, seeds_3": "further one-step methods; use `dpmpp-2s` or "
    "`dpmpp-sde`",
    "gradient_estimation": "Euler's method pushed on by the last change of its slope; use `lms`",
    "ipndm_v": "iPNDM with weights for uneven steps, as `lms` has them",
    "res_multistep": "the line in λ through two predictions; use `dpmpp-2m`",
    "sa_solver_pece": "`sa-solver` keeps its prediction (PEC), which costs half as much",
}
"""Names of samplers that stand for nothing here, and why or what to take instead."""

NO_SUCH_GRID: Mapping[str, str] = {
    "Align Your Steps": "times for given models: write them out, `given:times=(…)`",
    "Beta": "AUTOMATIC1111 takes quantiles of sigma, as diffusers does: `beta-sigmas`",
    "DDIM": "as a schedule type it is ComfyUI's ddim_uniform: `leading:steps_offset=1`",
    "KL Optimal, kl_optimal": "even in arctan(sigma); write its times out, `given:times=(…)`",
    "Karras Exponential": "a blend of the two; use either",
    "Uniform": "AUTOMATIC1111's is even in a table's entries: `linspace:whole=false`",
    "linear_quadratic": "for one model of video; write its times out, `given:times=(…)`",
    "use_flow_sigmas": "even in a flow's t: `uniform`, its flow_shift as `uniform:shift=…`",
}
"""The same for time grids."""

NO_SUCH_SCHEDULE: Mapping[str, str] = {
    "exp": "ᾱ = e^(−12t), in one scheduler of diffusers; write its table out, `alpha-bars`",
    "laplace": "diffusers takes alpha for ᾱ there; `laplace` is the paper's",
}
"""The same for values of diffusers' beta_schedule."""


class Docstring(NamedTuple):
    """What a docstring says in prose, and what it says of each argument."""

    body: str
    arguments: Mapping[str, str]


def page() -> str:
    """The whole of docs/methods.md."""
    contents = [f"- [{title(each)}](#{slug(title(each))})" for each in CHAPTERS]
    blocks = [
        "# Every method",
        "<!-- Written by scripts/methods.py from the docstrings: edit those, then `make docs`. -->",
        wrap(
            "Everything that is chosen by name, with its equation, its paper, when to use it and "
            "its settings. A part and its settings are written `name:setting=value,setting=value`, "
            "on the command line (`couette sample RUN --sampler ddim:eta=0.5 --grid karras`) as in "
            "a run's `config.yaml`; `couette list` shows the same in short."
        ),
        "\n".join([*contents, "- [Names elsewhere](#names-elsewhere)"]),
    ]
    for family, about in CHAPTERS.items():
        blocks += chapter(family, about, FAMILIES[family])
    return "\n\n".join([*blocks, *elsewhere()]) + "\n"


def chapter(family: str, about: object, registry: Registry[Any]) -> Iterator[str]:
    yield f"## {title(family)}"
    yield prose((inspect.getdoc(about) or "").partition("\n\n")[0])
    if registry is SAMPLERS:
        yield traits()
    for names in parts(registry):
        yield from section(registry, names)


def section(registry: Registry[Any], names: Sequence[str]) -> Iterator[str]:
    """One part: heading, docstring, settings, and what others call it."""
    name = names[0]
    yield f"### {heading(registry, names)}"
    said = read(inspect.getdoc(registry[name]) or "")
    yield prose(said.body)
    if registry.settings(name).model_fields:
        yield settings(registry, name, said.arguments)
    others: dict[str, list[str]] = {}
    for theirs, here in sorted(registry.theirs().items(), key=lambda each: each[0].casefold()):
        others.setdefault(here, []).append(f"`{theirs}`")
    for here in sorted(others):
        if here.partition(":")[0] == name:
            called = "Elsewhere" if here == name else f"`{here}` elsewhere"
            yield wrap(f"{called}: {', '.join(others[here])}.")


def settings(registry: Registry[Any], name: str, said: Mapping[str, str]) -> str:
    """A table of a part's settings; with a column of words where its docstring has any."""
    schema = registry.settings(name).model_json_schema()
    fields = registry.settings(name).model_fields
    rows = [
        (
            f"`{each}`",
            allowed(schema["properties"][each], schema.get("$defs", {})),
            "needed" if field.is_required() else default(field.default),
            said.get(each, ""),
        )
        for each, field in fields.items()
    ]
    if any(words for *_, words in rows):
        return table(("setting", "values", "default", "what it is"), rows)
    return table(("setting", "values", "default"), [row[:3] for row in rows])


def allowed(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words."""
    if "$ref" in schema:
        return allowed(defined[schema["$ref"].rpartition("/")[2]], defined)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(each, defined) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        inner = schema.get("items", {})
        return f"several: {allowed(inner, defined)}" if inner else "several"
    words = {
        "number": "number",
        "integer": "whole number",
        "boolean": "`true`, `false`",
        "string": "text",
        "null": "none",
        "object": "a part",
    }
    return f"{words[schema['type']]}{bounds(schema)}"


def bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    said = [f"from {number(low)}" if low is not None else ""]
    said += [f"above {number(schema['exclusiveMinimum'])}" if "exclusiveMinimum" in schema else ""]
    said += [f"to {number(high)}" if high is not None else ""]
    said += [f"below {number(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else ""]
    return "".join(f" {each}" for each in said if each)


def number(value: float) -> str:
    if isinstance(value, int):
        return "2^63" if value == 2**63 else f"{value:,}"
    return f"{value:g}"


def default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{written(value)}`"


def written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return f"({','.join(map(written, value))})"
    return str(value).lower() if isinstance(value, bool) else str(value)


def traits() -> str:
    """What each sampler declares of itself, and how to read it."""
    columns = ("sampler", "order", "weak order", "evaluations", "noise", "what else")
    rows = [
        (
            f"[`{name}`](#{slug(heading(SAMPLERS, [name]))})",
            str(SAMPLERS.trait(name, "order", "")),
            str(SAMPLERS.trait(name, "weak", "")),
            str(SAMPLERS.trait(name, "evaluations", 1) or "varies"),
            "drawn" if SAMPLERS.trait(name, "noise") else "",
            ", ".join(said for trait, said in ELSE.items() if SAMPLERS.trait(name, trait)),
        )
        for name in SAMPLERS
    ]
    legend = (
        "*Order*: of the error on the probability-flow ODE, start-up steps included, measured by "
        "the tests. *Weak order*: of the error of the distribution on Gaussian data, where noise "
        "is drawn. *Evaluations*: of the denoiser, for one step more. *Noise*: drawn on the way, "
        "as the settings stand."
    )
    return f"{wrap(legend)}\n\n{table(columns, rows)}"


ELSE = {
    "adaptive": "chooses its own steps",
    "inverse": "climbs from pictures to noise",
    "mix": "takes uniform noise too",
    "states": "for states, not pictures",
}


def elsewhere() -> Iterator[str]:
    """The chapter of names that other programs have."""
    yield "## Names elsewhere"
    yield wrap(
        "What diffusers, k-diffusion and the web UIs call these methods, and what to type here. "
        "Asked for by such a name, `couette sample` says the same. Other settings of theirs, "
        "and their defaults where they are no part of the method, are not copied."
    )
    yield "### Names of samplers"
    combined = {each: _typed(SAMPLERS.here(each) or "") for each in COMBINED}
    plain = {each: f"`--sampler {shell(here)}`" for each, here in SAMPLERS.theirs().items()}
    yield names_table(plain | combined)
    yield "Without a counterpart here:"
    yield bullets(NOT_HERE)
    yield "### Names of time grids"
    yield names_table({each: f"`--grid {shell(here)}`" for each, here in GRIDS.theirs().items()})
    yield "With another meaning, or without a counterpart here:"
    yield bullets(NO_SUCH_GRID)
    yield "### Names of schedules"
    yield wrap(
        "diffusers' values of `beta_schedule`, and its options that change a table: "
        "`beta_start` and `beta_end` are `beta_min` and `beta_max` here, `num_train_timesteps` is "
        "`steps`."
    )
    schedules = SCHEDULES.theirs()
    yield table(
        ("elsewhere", "here"),
        [(f"`{each}`", f"`--schedule {WRITTEN.get(each, schedules[each])}`") for each in schedules],
    )
    yield bullets(NO_SUCH_SCHEDULE)


WRITTEN = {
    "rescale_betas_zero_snr": "zero-terminal:schedule=…",
    "trained_betas": "betas:values=(…)",
}
"""Schedules that are nothing without a setting."""


def _typed(here: str) -> str:
    """`'dpmpp-2m' here (with --grid karras)` as flags."""
    sampler, grid = re.fullmatch(r"'(.*)' here \(with (.*)\)", here).groups()  # type: ignore[union-attr]
    return f"`--sampler {shell(sampler)} {grid}`"


def names_table(names: Mapping[str, str]) -> str:
    rows = sorted((whose(each), each.casefold(), each, here) for each, here in names.items())
    return table(
        ("whose", "name", "here"), [(owner, f"`{each}`", here) for owner, _, each, here in rows]
    )


SPACINGS = ("leading", "linspace", "trailing")
"""diffusers' values of timestep_spacing."""


def whose(name: str) -> str:
    """Whose spelling a name is in."""
    if "Scheduler" in name or name.startswith("use_") or name in SPACINGS:
        return "diffusers"
    if name.startswith(("sample_", "get_sigmas_")):
        return "k-diffusion"
    return "AUTOMATIC1111" if name != name.lower() else "ComfyUI"


def shell(text: str) -> str:
    """As a shell takes it: brackets and the like in quotes."""
    return f"'{text}'" if re.search(r"[()+*;&|<> ]", text) else text


def title(family: str) -> str:
    return TITLES.get(family, family.capitalize())


TITLES = {
    "data": "Data sets",
    "grids": "Time grids",
    "times": "Times of training",
    "told": "What the network is told",
}


def heading(registry: Registry[Any], names: Sequence[str]) -> str:
    first, *rest = (f"`{name}`" for name in names)
    return f"{registry.kind.capitalize()} {first}" + "".join(f", also {each}" for each in rest)


def parts(registry: Registry[Any]) -> list[list[str]]:
    """Names, together where they are one part's, in order of the first."""
    found: dict[int, list[str]] = {}
    for name in registry:
        found.setdefault(id(registry[name]), []).append(name)
    return list(found.values())


def read(docstring: str) -> Docstring:
    """A docstring taken apart: prose without Raises, and Args by name."""
    body, _, tail = docstring.partition("\nArgs:\n")
    arguments: dict[str, str] = {}
    listed = re.match(r"(?:[ ]{4}.*\n?)*", tail)
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(listed.group() if listed else "").strip()):
        names, _, said = entry.partition(": ")
        arguments |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return Docstring(body.partition("\nRaises:\n")[0].strip(), arguments)


def prose(text: str) -> str:
    """Paragraphs of a docstring as Markdown, what it says of its use in one of its own."""
    flat = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
    apart = re.sub(rf"(?:^|\s+){WHEN}: ", f"\n\n**{WHEN}:** ", "\n\n".join(flat))
    return "\n\n".join(map(wrap, apart.strip().split("\n\n")))


WHEN = "When to use it"
HELD = "\N{NO-BREAK SPACE}"


def wrap(text: str) -> str:
    """Lines of the page: code stays whole, and none begins as a list or a heading does."""
    held = re.sub(r"`[^`]*`", lambda code: code.group().replace(" ", HELD), text)
    lines = [
        line.replace(HELD, " ")
        for line in textwrap.wrap(held, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join(re.sub(r"^(\d*)([-+*#>.)])(?=\s)", r"\1\\\2", line) for line in lines)


def bullets(entries: Mapping[str, str]) -> str:
    marked = (
        f"{', '.join(f'`{name}`' for name in names.removesuffix(AND).split(', '))}"
        f"{AND if names.endswith(AND) else ''}: {said}."
        for names, said in entries.items()
    )
    return "\n".join(textwrap.indent(wrap(each), "  ").replace("  ", "- ", 1) for each in marked)


AND = " and their like"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def slug(heading: str) -> str:
    """The anchor that Git hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
