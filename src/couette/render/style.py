"""One hand for every figure: fonts, colours, sizes, and how a figure becomes a picture.

Matplotlib is used through Figure and the Agg canvas alone, without pyplot, and is imported at the
first figure. What the user's own matplotlibrc says is set aside while a figure is drawn.
"""

from __future__ import annotations

import functools
import textwrap
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from PIL import Image, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

PAPER = "#ffffff"
INK = "#222222"
FAINT = "#8a8a8a"
RULE = "#e4e4e4"
ALARM = "#d55e00"
"""Marks what the reader must not miss: copies, losses that are not finite."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#222222")
"""Told apart by colour-blind readers too (Okabe and Ito 2008), in the order they are used."""

RAMP = ("#ffffff", "#cfe3f1", "#7fb8da", "#2f83b7", "#0b4f86", "#062a4f")
"""From nothing to most, for densities: one hue, lightness falling evenly."""

NOT_A_NUMBER = (255, 0, 255)
"""The colour of pixels that are NaN or infinite: no picture and no palette here has it."""

DPI = 144
TEXT = 10.0
"""Points, in figures; sheets use `SHEET_TEXT` pixels. Figures are as wide as a printed page."""
SHEET_TEXT = 16
WIDTH = 7.0
ENTRY = 26
"""Characters in a line of a legend."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.titlesize": TEXT + 1,
    "axes.labelsize": TEXT,
    "legend.fontsize": TEXT - 1,
    "legend.frameon": False,
    "xtick.labelsize": TEXT - 1,
    "ytick.labelsize": TEXT - 1,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": RULE,
    "lines.linewidth": 1.8,
    "figure.facecolor": PAPER,
    "figure.titlesize": TEXT + 2,
    "figure.dpi": DPI,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}

# Matplotlib's settings are global to the process; two threads must not swap them under each other.
_lock = threading.RLock()


@contextmanager
def settings() -> Iterator[None]:
    """Our settings and no one else's, for the length of a `with`."""
    import matplotlib

    with _lock, matplotlib.rc_context():
        matplotlib.rcdefaults()
        ours: Any = {**_SETTINGS, "axes.prop_cycle": _cycle()}
        matplotlib.rcParams.update(ours)
        yield


def drawn(make: Callable[P, Figure]) -> Callable[P, Image.Image]:
    """Decorator: a function that builds a Figure becomes one that returns the picture of it."""

    @functools.wraps(make)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Image.Image:
        with settings():
            return _picture(make(*args, **kwargs))

    return draw


def panels(
    rows: int,
    columns: int,
    *,
    width: float = WIDTH,
    height: float,
    title: str | None = None,
    **how: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` by `height` inches and its axes, row by row. Call under `settings`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **how)
    if title:
        figure.suptitle(label(title, int(10 * width)), x=0.02, ha="left")
    return figure, list(axes.flat)


def legend(axes: Axes, least: int = 2) -> None:
    """A legend to the right of the axes, where it hides no data; none below `least` entries."""
    if len(axes.get_legend_handles_labels()[0]) >= least:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def label(text: str, width: int = 0) -> str:
    """Text that matplotlib can draw: bad formulas as they stand, unknown characters as boxes.

    Where a `width` in characters is given, longer text is broken at spaces, unless it has formulas.
    """
    text = "".join(c if c == "\n" or _known(c) else "\u25a1" for c in plain(text))
    if "$" in text and _is_formula(text):
        return text
    lines = (textwrap.fill(line, width) for line in text.split("\n")) if width else (text,)
    return "\n".join(lines).replace("$", r"\$")


def plain(text: str) -> str:
    """Text with its accents joined to their letters, as a simple layout needs it (α + ¯ is ᾱ)."""
    return unicodedata.normalize("NFC", text)


def lighter(count: int, ramp: Sequence[str] = RAMP) -> list[Any]:
    """`count` colours of one hue, from light (but legible) to dark, for series with an order."""
    colours = colour_map(ramp)
    return [colours(0.35 + 0.65 * i / max(count - 1, 1)) for i in range(count)]


def colour_map(ramp: Sequence[str] = RAMP) -> Any:
    """The ramp as a matplotlib colour map."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("couette", list(ramp))


@functools.cache
def font(size: int = SHEET_TEXT, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The figures' own font, for text on sheets; `size` in pixels."""
    return ImageFont.truetype(
        str(_font_file("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")),
        size,
        layout_engine=ImageFont.Layout.BASIC,
    )


def _picture(figure: Figure) -> Image.Image:
    canvas: Any = figure.canvas
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert(
        "RGB"
    )


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=COLOURS)


def _is_formula(text: str) -> bool:
    """Whether every $…$ in the text can be set."""
    from matplotlib.mathtext import MathTextParser

    if text.replace(r"\$", "").count("$") % 2:
        return False
    try:
        MathTextParser("agg").parse(text)
    except ValueError:
        return False
    return True


@functools.cache
def _known(character: str) -> bool:
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(_font_file("DejaVuSans.ttf"))).get_char_index(ord(character)) != 0


def _font_file(name: str) -> Path:
    """A font of matplotlib, which is imported only where that lies elsewhere than usual: for words
    below a sheet of samples it would take as long as a picture does."""
    spec = find_spec("matplotlib")
    for home in spec.submodule_search_locations or () if spec else ():
        path = Path(home) / "mpl-data" / "fonts" / "ttf" / name
        if path.is_file():
            return path
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / name
