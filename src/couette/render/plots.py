"""Lines and bars: losses, noise schedules, one quantity against another.

A series is (x, y), two arrays of one length. Labels may hold formulas between dollar signs; one
that can't be set stands as it was written. Values that are not finite leave a gap in a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from couette.errors import ShapeError
from couette.render.style import (
    ALARM,
    COLOURS,
    ENTRY,
    FAINT,
    TEXT,
    drawn,
    label,
    legend,
    lighter,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Series = tuple[ArrayLike, ArrayLike]
Values = NDArray[np.float64]

_DASHES = ("-", "--", ":", "-.")
"""Of the lines that have to share a colour with others."""

_TICK = 28
"""Characters of a name below a bar."""

_SHOWN_LOG_SNR = 25.0
"""Beyond it nothing is left to see of the smaller part, and rounding decides the number."""

_LINEAR_BETA = 0.1
"""Beside a larger β, DDPM's own (up to 0.02) would lie on the axis."""


class Levels(NamedTuple):
    """A noise schedule at times t (N,): x_t = alpha·x0 + sigma·eps; beta where it is a table's."""

    t: ArrayLike
    alpha: ArrayLike
    sigma: ArrayLike
    beta: ArrayLike | None = None


@drawn
def curves(
    series: Mapping[str, Series],
    *,
    x: str = "",
    y: str = "",
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    xlim: tuple[float | None, float | None] | None = None,
    ylim: tuple[float | None, float | None] | None = None,
    marks: bool = False,
    ordered: bool = False,
) -> Figure:
    """Labelled lines in one frame: any quantity against any other.

    Args:
        series: a label to (x, y).
        x, y: what the axes show, with the unit.
        log_x, log_y: logarithmic axes, where values of 0 and below leave a gap.
        marks: a dot at each point, for series of few points.
        ordered: colours of one hue from light to dark, for series that have an order.

    Raises:
        ShapeError: no series, or x and y of different lengths.
    """
    lines = _checked(series)
    figure, (axes,) = panels(1, 1, height=max(3.8, 0.21 * len(lines)))  # a legend is as tall
    colours = lighter(len(lines)) if ordered else _colours(len(lines))
    for i, ((name, (xs, ys)), colour) in enumerate(zip(lines.items(), colours, strict=True)):
        xs, ys = _positive(xs, log_x), _positive(ys, log_y)
        axes.plot(
            xs,
            ys,
            color=colour,
            ls="-" if ordered else _DASHES[i // len(COLOURS) % len(_DASHES)],
            label=label(name, ENTRY) or None,
            marker="o" if marks else None,
            ms=4,
        )
    _name(axes, x, y, title)
    _scale(axes, log_x, log_y)
    axes.set(**{k: v for k, v in {"xlim": xlim, "ylim": ylim}.items() if v is not None})
    legend(axes)
    return figure


@drawn
def loss_curve(
    runs: Mapping[str, Series],
    *,
    bins: Mapping[str, Series] | None = None,
    epochs: Mapping[str, Series] | None = None,
    ylim: tuple[float, float] | None = None,
    log: bool = False,
    x: str = "optimizer step",
    y: str = "loss",
    title: str = "",
) -> Figure:
    """The loss over training: as measured (thin) and its running median (bold), runs overlaid.

    Args:
        runs: a run's name to (step, loss).
        bins: a noise level's name to (step, loss at that level), from low noise to high: drawn
            in a second panel, as running medians on a logarithmic axis.
        epochs: a run's name to (last step of each epoch, average loss of that epoch): dots.
        ylim: from 0 to what nearly all losses lie below when not given; the start may lie above.
        log: a logarithmic axis for the loss.

    Raises:
        ShapeError: no runs, or steps and losses of different lengths.
    """
    lines = _checked(runs)
    figure, frames = panels(1, 2 if bins else 1, width=10.5 if bins else 7.0, height=3.8)
    axes = frames[0]
    colours = dict(zip(lines, _colours(len(lines)), strict=True))
    for name, (steps, losses) in lines.items():
        losses = _positive(losses, log)
        axes.plot(steps, losses, color=colours[name], lw=0.7, alpha=0.3)
        axes.plot(
            *running_median(steps, losses),
            color=colours[name],
            label=label(name or "loss", ENTRY),
        )
    for name, (steps, averages) in _checked(epochs).items() if epochs else ():
        axes.plot(
            steps, averages, "o", color=colours.get(name, FAINT), mec="white", ms=6, zorder=3,
            label=label(f"{name} (epoch averages)".strip(), ENTRY),
        )  # fmt: skip
    axes.set_ylim(*(ylim or _loss_range([losses for _, losses in lines.values()], log)))
    _name(axes, x, y, title)
    _scale(axes, False, log)
    for steps, losses in lines.values():
        _mark_not_finite(axes, steps, losses)
    if bins:
        _loss_by_noise(frames[1], bins, x, y)
    # Losses fall: the upper right corner is the free one.
    axes.legend(
        loc="upper right", frameon=True, framealpha=0.85, edgecolor="none",
        title="thin: as logged\nbold: running median", title_fontsize=TEXT - 2, alignment="left",
    )  # fmt: skip
    return figure


@drawn
def schedules(levels: Mapping[str, Levels], *, x: str = "$t$", title: str = "") -> Figure:
    """Noise schedules overlaid: β, ᾱ = α², α against σ, and the log signal-to-noise ratio.

    Args:
        levels: a schedule's name to its levels. The panel of β is left out where none has it.

    Raises:
        ShapeError: no schedules, or arrays of different lengths.
    """
    if not levels:
        raise ShapeError("There are no schedules to show; give at least one.")
    shown = {name: _level_arrays(name, level) for name, level in levels.items()}
    with_beta = any(beta is not None for *_, beta in shown.values())
    if with_beta:
        figure, (beta_axes, *frames) = panels(2, 2, width=8.6, height=6.6, title=title)
    else:
        figure, frames = panels(1, 3, width=11.0, height=3.7, title=title)
        beta_axes = None
    bar_axes, mix_axes, snr_axes = frames
    for (name, (t, alpha, sigma, beta)), colour in zip(
        shown.items(), _colours(len(shown)), strict=True
    ):
        if beta_axes is not None and beta is not None:
            beta_axes.plot(t, beta, color=colour)
        bar_axes.plot(t, alpha**2, color=colour, label=label(name, ENTRY))
        mix_axes.plot(t, alpha, color=colour)
        mix_axes.plot(t, sigma, color=colour, ls=(0, (4, 2)))
        snr_axes.plot(t, _log_snr(alpha, sigma), color=colour)
    if beta_axes is not None:
        _name(beta_axes, x, r"$\beta_t$", "noise added at a step")
        if beta_axes.get_ylim()[1] > _LINEAR_BETA:
            beta_axes.set_yscale("log")
    _name(bar_axes, x, r"$\bar\alpha_t = \alpha_t^2$", "signal kept")
    _name(mix_axes, x, r"$\alpha_t$,  $\sigma_t$", "signal (solid) and noise (dashed)")
    _name(snr_axes, x, r"$\ln(\alpha_t^2 / \sigma_t^2)$", "log signal-to-noise ratio")
    bar_axes.set_ylim(-0.03, 1.05)
    if max(np.nanmax(sigma) for _, _, sigma, _ in shown.values()) > 3:
        mix_axes.set_yscale("log")
    low, high = snr_axes.get_ylim()
    snr_axes.set_ylim(max(low, -_SHOWN_LOG_SNR), min(high, _SHOWN_LOG_SNR))
    handles, names = bar_axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    return figure


@drawn
def bars(
    labels: Sequence[str],
    series: Mapping[str, ArrayLike],
    *,
    x: str = "",
    y: str = "",
    title: str = "",
    ylim: tuple[float | None, float | None] | None = None,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Bars in groups, with their values written above where there is room.

    Args:
        labels: one a group, such as the classes.
        series: a name to (G,) values, such as "raw" and "averaged".
        reference: a name and a value, drawn as a dashed line across: a floor, a chance level.

    Raises:
        ShapeError: no groups, or values of another length than the labels.
    """
    values = {name: np.asarray(v, dtype=np.float64) for name, v in series.items()}
    if not labels or not values or any(v.shape != (len(labels),) for v in values.values()):
        given = ", ".join(f"{name} {v.shape}" for name, v in values.items()) or "no values"
        raise ShapeError(f"Bars need one value a label: {len(labels)} labels, {given}.")
    crowded = len(labels) * max((len(_short(name)) for name in labels), default=0) > 60
    figure, (axes,) = panels(1, 1, height=5.0 if crowded else 3.8)
    axes.margins(y=0.1)
    thick = 0.8 / len(values)
    places = np.arange(len(labels))
    for i, ((name, heights), colour) in enumerate(
        zip(values.items(), _colours(len(values)), strict=True)
    ):
        at = places + (i - (len(values) - 1) / 2) * thick
        drawn_bars = axes.bar(at, np.nan_to_num(heights), thick * 0.92, color=colour)
        drawn_bars.set_label(label(name, ENTRY))
        if len(labels) * len(values) <= 12:
            texts = [f"{h:.3g}" for h in heights]
            axes.bar_label(drawn_bars, texts, padding=2, fontsize=TEXT - 2)
    if reference:
        axes.axhline(reference[1], color=FAINT, ls=(0, (4, 2)), label=label(reference[0], ENTRY))
    axes.set_xticks(places, [label(_short(name)) for name in labels], rotation=90 * crowded)
    axes.grid(axis="x", visible=False)
    _name(axes, x, y, title)
    if ylim is not None:
        axes.set_ylim(*ylim)
    legend(axes)
    return figure


def running_median(x: ArrayLike, y: ArrayLike, *, points: int = 300) -> tuple[Values, Values]:
    """The median of y in a window that slides over x, at up to `points` places.

    The window is a fiftieth of the series and at least 5 long; shorter at both ends. Values that
    are not finite are passed over; a window without any other gives NaN.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    half = max(2, len(ys) // 100)
    places = np.unique(np.linspace(0, len(ys) - 1, min(points, len(ys))).round().astype(int))
    windows = [ys[max(0, i - half) : i + half + 1] for i in places]
    finite = [window[np.isfinite(window)] for window in windows]
    medians = [float(np.median(window)) if window.size else np.nan for window in finite]
    return xs[places], np.array(medians)


def _loss_by_noise(axes: Axes, bins: Mapping[str, Series], x: str, y: str) -> None:
    lines = _checked(bins)
    for (name, (steps, losses)), colour in zip(lines.items(), lighter(len(lines)), strict=True):
        axes.plot(*running_median(steps, _positive(losses, True)), color=colour, label=label(name))
    _name(axes, x, y, "by noise level")
    _scale(axes, False, True)
    legend(axes, least=1)


def _mark_not_finite(axes: Axes, steps: Values, losses: Values) -> None:
    bad = steps[~np.isfinite(losses)]
    named = "not finite" in axes.get_legend_handles_labels()[1]
    if bad.size:
        axes.plot(
            bad, np.full(bad.size, 0.025), "x", color=ALARM, ms=6,
            label=None if named else "not finite", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _loss_range(losses: Sequence[Values], log: bool) -> tuple[float | None, float | None]:
    """From 0 to above nearly all values: a few large ones at the start don't flatten the rest."""
    every = np.concatenate(losses)
    every = every[np.isfinite(every)]
    if log or not every.size or every.min() < 0:
        return None, None
    top = min(float(every.max()), 1.5 * float(np.quantile(every, 0.95)))
    return 0.0, 1.05 * top if top > 0 else 1.0


def _log_snr(alpha: Values, sigma: Values) -> Values:
    """ln(alpha²/sigma²), NaN at the ends where it is infinite."""
    inside = (alpha > 0) & (sigma > 0)
    ratio = np.where(inside, alpha, 1.0) / np.where(inside, sigma, 1.0)
    return np.where(inside, 2 * np.log(ratio), np.nan)


def _level_arrays(name: str, level: Levels) -> tuple[Values, Values, Values, Values | None]:
    t, alpha, sigma = (np.asarray(v, dtype=np.float64) for v in level[:3])
    beta = None if level.beta is None else np.asarray(level.beta, dtype=np.float64)
    lengths = {array.shape for array in (t, alpha, sigma, beta) if array is not None}
    if len(lengths) > 1 or t.ndim != 1:
        raise ShapeError(f"The schedule '{name}' has arrays of shapes {lengths}; give (N,) each.")
    return t, alpha, sigma, beta


def _checked(series: Mapping[str, Series]) -> dict[str, tuple[Values, Values]]:
    if not series:
        raise ShapeError("There is nothing to plot; give at least one series.")
    arrays = {
        name: (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        for name, (x, y) in series.items()
    }
    for name, (x, y) in arrays.items():
        if x.shape != y.shape or x.ndim != 1 or not x.size:
            raise ShapeError(
                f"The series '{name}' has x of shape {x.shape} and y of shape {y.shape}; "
                "give two arrays of one length, not empty."
            )
    return arrays


def _positive(values: Values, log: bool) -> Values:
    """The values as a line can show them: gaps where they are infinite, or not above 0 in a log."""
    shown = np.isfinite(values) & ((values > 0) if log else True)
    return np.where(shown, values, np.nan)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _name(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(label(x, 60))
    axes.set_ylabel(label(y, 36))
    axes.set_title(label(title, 56), loc="left")


def _short(name: str) -> str:
    """A name that leaves room for the bars above it."""
    return name if len(name) <= _TICK else name[: _TICK - 1] + "…"


def _scale(axes: Axes, log_x: bool, log_y: bool) -> None:
    """Logarithmic axes where asked for and where there is anything above 0 to show on them."""
    if log_x and _above_zero(line.get_xdata() for line in axes.lines):
        axes.set_xscale("log")
        _plain(axes.xaxis)
    if log_y and _above_zero(line.get_ydata() for line in axes.lines):
        axes.set_yscale("log")
        _plain(axes.yaxis)


def _above_zero(values: Iterable[ArrayLike]) -> bool:
    return any(np.any(np.asarray(each) > 0) for each in values)


def _plain(axis: Axis) -> None:
    """Plain numbers along a logarithmic axis of less than three decades: 20, not 2·10¹."""
    low, high = axis.get_data_interval()
    if 0 < low < high < 1000 * low:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        numbers = FuncFormatter(lambda value, _: f"{value:g}")
        axis.set_major_formatter(numbers)
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter(numbers if high < 50 * low else NullFormatter())
