"""tyro's answers in our words: it reads the flags, and its refusals become one sentence each."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

import tyro

from couette.errors import InputError, nearest

T = TypeVar("T")

_FLAG = re.compile(r"--[\w.-]+")
_KINDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "a word", "PATH": "a path"}


def parse_call(function: Callable[..., T], verb: str, arguments: list[str], others: str = "") -> T:
    """Call a verb's function with flags read off its signature; `others` ends its help.

    Raises:
        InputError: a flag that does not exist, or a value that it can't take.
    """

    @wraps(function)
    def held(*given: Any, **flags: Any) -> Callable[[], T]:
        return partial(function, *given, **flags)

    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    told = f"{about}\n\n{others}" if others else about
    known = re.findall(r"--([\w]+) \(", others)
    call: Callable[[], T] = parse(held, f"couette {verb}", arguments, known=known, description=told)
    return call()


def parse(
    shape: Any, prog: str, arguments: Sequence[str], known: Iterable[str] = (), **more: Any
) -> Any:
    """What `tyro.cli` reads off the arguments.

    Args:
        shape: a function or a model of settings.
        prog: the command as it is typed.
        arguments: what was typed after it.
        known: further flags that exist, without dashes, to find a near one among.
        more: as for `tyro.cli`.

    Raises:
        InputError: a flag that does not exist, or a value that it can't take.
        SystemExit: with 0, where help was asked for.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(shape, prog=prog, args=list(arguments), **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_sentence(said.getvalue(), prog, known)) from None


def _sentence(box: str, prog: str, known: Iterable[str]) -> str:
    """What stands in tyro's box, as one sentence."""
    # A title, a rule where the terminal can draw no box, what is wrong, a rule, hints.
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()][1:]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("─-")] or [len(lines)]
    first = 1 if rules[0] == 0 else 0
    cut = rules[first] if len(rules) > first else len(lines)
    lines = lines[first:]
    cut -= first
    text, hints = " ".join(lines[:cut]), " ".join(lines[cut:])
    if found := re.match(r"Unrecognized options: (.*)", text):
        return _unknown(found[1].split(", "), prog, [*_FLAG.findall(hints), *known])
    if found := re.match(r"Error parsing (--[\w.-]+)[^:]*: (.*)", text):
        flag = found[1]
        several = re.search(r"valid parse for arguments: \[(.*?)\]", found[2])
        if several:
            values = several[1].replace("'", "").replace(",", "")
            return f"{flag} can't be read from '{values}'; see {prog} --help."
        shape = re.search(r"no type matching \S*\{(\w+(?: \w+)+)\} could .*? from \[(.*?)\]", text)
        if shape:
            values = shape[2].replace("'", "").replace(",", "")
            return f"{flag} takes {_several(shape[1])}, not '{values}'."
        kind = re.search(re.escape(flag) + r" (\S+)", hints)
        value = re.search(r"from \['([^']*)'\]", found[2]) or re.search(r"'([^']*)'\.?$", found[2])
        if kind and value:
            return f"{flag} takes {_kind(kind[1])}, not '{value[1]}'."
    if found := re.match(r"invalid choice '(.*?)' for argument '(.*?)'.*\((.*)\)", text):
        choices = found[3].rstrip(",").replace("'", "")
        return f"{found[2]} takes one of {choices}, not '{found[1]}'."
    if found := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{found[1]} needs a value; see {prog} --help."
    if found := re.match(r"Missing from .*?: (.*)", text):
        return f"{prog} needs {found[1].removesuffix(' (required)')}; see {prog} --help."
    return f"{text.rstrip('.')}; see {prog} --help."


def _unknown(given: list[str], prog: str, flags: list[str]) -> str:
    """What to say of flags that do not exist, or of words too many."""
    flag = next((each for each in given if each.startswith("-")), None)
    if flag is None:
        return f"{prog} has no use for {' '.join(map(repr, given))}; see {prog} --help."
    names = {each.lstrip("-"): each for each in reversed(flags)}
    # Of a dotted flag its last word is what a hand writes.
    names = {name.rpartition(".")[2]: name for name in names} | {name: name for name in names}
    close = nearest(flag.lstrip("-"), names)
    near = None if close is None else names[close]
    hint = f"did you mean --{near}?" if near else f"{prog} --help lists those there are."
    return f"{prog} has no flag {flag}; {hint}"


def _several(metavar: str) -> str:
    """A metavar of several values in words: INT INT is "2 whole numbers"."""
    words = metavar.split()
    return f"{len(words)} {_KINDS.get(words[0], words[0]).removeprefix('a ')}s"


def _kind(metavar: str) -> str:
    """A metavar in words: INT, {None}|FLOAT."""
    parts = [part for part in metavar.split("|") if part.strip("{}") != "None"]
    return " or ".join(_KINDS.get(part, part) for part in parts)
