"""The command line: finds the verb by hand, so that `couette --help` loads nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from couette.errors import ConfigError, CouetteError, Interrupted, UnknownName

VERBS = {
    "train": "train a model: couette train DATA [--recipe NAME] [--minutes M]",
    "sample": "draw pictures: couette sample RUN [--count N] [--label 3]",
    "edit": "change pictures: couette edit RUN img2img|inpaint|anagram|… [PICTURE]",
    "replay": "draw a picture again from what is written in it: couette replay PICTURE.png",
    "show": "draw what explains: couette show RUN|DATA|RECIPE [noising|loss|reverse|…]",
    "eval": "measure a model: couette eval RUN",
    "lab": "compare samplers on a model: couette lab RUN [--samplers heun dpmpp-2m]",
    "search": 'find pictures by words: couette search RUN "a red circle" [DATA]',
    "export": "write a model by itself, without its run: couette export RUN FOLDER",
    "list": "recipes, samplers, schedules, networks, data sets and more",
    "doctor": "what this machine has, and what will be used",
}

USAGE = """Couette trains diffusion models on your pictures, samples from them, edits with them
and measures them.

usage: couette VERB …

{verbs}

`couette VERB --help` tells the flags of a verb. `--debug` shows the whole traceback of an error.
Begin with:  couette train digits
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, or with the error's code (see `couette.errors`)."""
    # Threads that wait by spinning take the core from the thread they wait for where other programs
    # run too: beside busy programs two threads ran 3x slower so, in one trial. OpenMP reads this
    # once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Not list(…): that name is the verb's module once `couette list` has run in this process.
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in arguments
    arguments = [each for each in arguments if each != "--debug"]
    sys.exit(_guarded(lambda: _dispatch(arguments), debug, next(iter(arguments), "")))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {v:<{width}}  {VERBS[v]}" for v in VERBS)), end="")
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        from couette import __version__

        print(f"couette {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise UnknownName("command", verb, VERBS)
    signal.signal(signal.SIGTERM, _terminated)
    run: Callable[[list[str]], int] = import_module(f"couette.cli.{verb}").run
    return run(rest)


def _guarded(work: Callable[[], int], debug: bool, verb: str) -> int:
    try:
        return work()
    except CouetteError as error:
        if debug:
            traceback.print_exc()
        print(f"couette: {_worded(error, verb)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("couette: stopped; what was saved before is intact.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); so is the need for it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        print(
            f"couette: an unexpected {type(error).__name__}: {error}. This is a fault of ours; "
            "--debug shows where.",
            file=sys.stderr,
        )
        return 1


def _worded(error: CouetteError, verb: str) -> str:
    """An error as the command line says it: settings as flags."""
    if not isinstance(error, ConfigError) or verb not in VERBS:
        return str(error)
    from couette.cli.options import flagged

    return flagged(str(error), verb)


def _terminated(number: int, frame: object) -> None:
    raise Interrupted(number, "Stopped; what was saved before is intact.")
