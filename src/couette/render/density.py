"""Random variables and clouds of points: what a diffusion model is about, without pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from couette.errors import ShapeError
from couette.render.style import (
    COLOURS,
    ENTRY,
    INK,
    colour_map,
    drawn,
    label,
    legend,
    lighter,
    panels,
)
from couette.render.table import refuse_more

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = NDArray[np.float64]
"""(N, 2)."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom, top."""


@drawn
def histograms(
    samples: Mapping[str, ArrayLike],
    *,
    densities: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    x: str = "value",
    title: str = "",
) -> Figure:
    """Histograms of random variables in one frame, each with its exact density where known.

    Args:
        samples: a variable's name to its samples (N,).
        densities: a name to (value, probability density); a name that `samples` has takes its
            colour.

    Raises:
        ShapeError: no variables, or none with a finite sample.
    """
    finite = {name: _finite(values) for name, values in samples.items()}
    if not finite or any(not values.size for values in finite.values()):
        raise ShapeError("A histogram needs finite samples; give at least one a variable.")
    figure, (axes,) = panels(1, 1, height=3.6)
    colours = dict(zip(finite, COLOURS, strict=False))
    for name, values in finite.items():
        axes.hist(
            values, bins=_bins(values), density=True, alpha=0.35, color=colours[name],
            label=label(name, ENTRY),
        )  # fmt: skip
    for name, (at, density) in (densities or {}).items():
        axes.plot(at, density, color=colours.get(name, INK))
    axes.set(xlabel=label(x), ylabel="probability density")
    axes.set_title(label(title, 56), loc="left")
    legend(axes, least=1)
    return figure


@drawn
def conditionals(
    x: ArrayLike,
    y: ArrayLike,
    given: Mapping[float, tuple[ArrayLike, ArrayLike]],
    *,
    x_label: str = "height $X$ (cm)",
    y_label: str = "weight $Y$ (kg)",
    title: str = "",
) -> Figure:
    """Joint samples of X and Y, and p(y | x) at chosen x beside them, on the same axis of y.

    Args:
        x, y: samples (N,) each.
        given: a value of x to (y, p(y | x)).

    Raises:
        ShapeError: x and y of different lengths.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ShapeError(f"x has shape {xs.shape} and y {ys.shape}; give two arrays of one length.")
    figure, (left, right) = panels(1, 2, width=8.6, height=3.8, title=title, sharey=True)
    left.plot(xs, ys, ".", color="#9aa5ad", ms=3, alpha=0.5, mew=0)
    for (value, (at, density)), colour in zip(given.items(), lighter(len(given)), strict=True):
        left.axvline(value, color=colour, lw=1.4)
        right.plot(density, at, color=colour, label=f"$x$ = {value:g}")
        right.fill_betweenx(np.asarray(at), 0, np.asarray(density), color=colour, alpha=0.12)
    left.set(xlabel=label(x_label), ylabel=label(y_label))
    right.set_xlabel("probability density")
    right.set_title("$p(y\\,|\\,x)$", loc="left")
    left.set_title("samples", loc="left")
    legend(right, least=1)
    return figure


def dye(
    points: Sequence[ArrayLike],
    *,
    titles: Sequence[str] = (),
    paths: ArrayLike | None = None,
    times: Sequence[float] | None = None,
    extent: Extent | None = None,
    columns: int = 6,
    title: str = "",
) -> Image.Image:
    """A cloud of points at several moments, as density, with the paths of a few of them on top.

    Args:
        points: the points at each moment, (N, 2) each.
        titles: one a moment.
        paths: (S, P, 2), P points followed over S moments evenly apart from the first panel to
            the last; each panel shows them up to its own moment.
        times: how far along its paths each panel is, in [0, 1]; even when not given.
        extent: left, right, bottom, top; taken from the points when not given.
        columns: panels in a row, at most.

    Raises:
        ShapeError: no moments, or arrays of another shape.
        InputError: more titles than moments.
    """
    clouds, tracks = _clouds(points), _tracks(paths)
    refuse_more(titles, len(clouds), "titles", "moments")
    return _dye(clouds, titles, tracks, _moments(times, len(clouds)), extent, columns, title)


def dye_frames(
    points: Sequence[ArrayLike],
    *,
    titles: Sequence[str] = (),
    paths: ArrayLike | None = None,
    extent: Extent | None = None,
) -> list[Image.Image]:
    """The same, one moment a frame, for `save_gif`. Arguments and errors as for `dye`."""
    clouds, tracks = _clouds(points), _tracks(paths)
    refuse_more(titles, len(clouds), "titles", "moments")
    extent = extent or _extent(clouds)
    moments = _moments(None, len(clouds))
    words = [*titles, *[""] * (len(clouds) - len(titles))]
    return [
        _dye([cloud], [word], tracks, [moment], extent, 1, "")
        for cloud, word, moment in zip(clouds, words, moments, strict=True)
    ]


@drawn
def _dye(
    clouds: Sequence[Points],
    titles: Sequence[str],
    tracks: Points | None,
    moments: Sequence[float],
    extent: Extent | None,
    columns: int,
    title: str,
) -> Figure:
    columns = min(columns, len(clouds))
    rows = -(-len(clouds) // columns)
    inch = 3.2 if columns == 1 else 1.75
    head = 0.24 * any(titles)
    figure, frames = panels(
        rows, columns, width=inch * columns,
        height=(inch + head) * rows + 0.3 * bool(title), title=title,
    )  # fmt: skip
    box = extent or _extent(clouds)
    for i, axes in enumerate(frames):
        if i < len(clouds):
            _draw_cloud(axes, clouds[i], box)
            _draw_paths(axes, tracks, moments[i])
            axes.set_title(label(titles[i]) if i < len(titles) else "")
        _bare(axes, box, visible=i < len(clouds))
    return figure


def _draw_cloud(axes: Axes, cloud: Points, box: Extent) -> None:
    """The density, each panel from none to its own most: late, thin dye stays visible."""
    from matplotlib.colors import PowerNorm

    bins = int(np.clip(np.sqrt(len(cloud)), 24, 96))
    counts, _, _ = np.histogram2d(
        cloud[:, 0], cloud[:, 1], bins=bins, range=[list(box[:2]), list(box[2:])]
    )
    top = max(1.0, float(np.quantile(counts[counts > 0], 0.98)) if counts.any() else 1.0)
    axes.imshow(
        counts.T, origin="lower", extent=box, cmap=colour_map(), interpolation="nearest",
        norm=PowerNorm(0.6, 0, top),
    )  # fmt: skip


def _draw_paths(axes: Axes, tracks: Points | None, moment: float) -> None:
    if tracks is None:
        return
    until = 1 + round(moment * (len(tracks) - 1))
    past = tracks[:until]
    axes.plot(past[..., 0], past[..., 1], color=COLOURS[1], lw=0.9, alpha=0.9)
    axes.plot(past[-1, :, 0], past[-1, :, 1], "o", color=COLOURS[1], ms=3, mec="white", mew=0.5)


def _bare(axes: Axes, box: Extent, *, visible: bool) -> None:
    axes.set(xlim=box[:2], ylim=box[2:], xticks=(), yticks=(), aspect="equal")
    axes.grid(visible=False)
    axes.spines[:].set_visible(visible)
    axes.patch.set_visible(visible)


def _clouds(points: Sequence[ArrayLike]) -> list[Points]:
    clouds = [np.asarray(cloud, dtype=np.float64) for cloud in points]
    if not clouds or any(cloud.ndim != 2 or cloud.shape[1] != 2 for cloud in clouds):
        shapes = ", ".join(str(cloud.shape) for cloud in clouds) or "none"
        raise ShapeError(f"Dye needs points (N, 2) at each moment; the shapes given are {shapes}.")
    return [cloud[np.isfinite(cloud).all(axis=1)] for cloud in clouds]


def _tracks(paths: ArrayLike | None) -> Points | None:
    if paths is None:
        return None
    tracks = np.asarray(paths, dtype=np.float64)
    if tracks.ndim != 3 or tracks.shape[2] != 2 or not tracks.shape[0]:
        raise ShapeError(f"Paths of shape {tracks.shape} can't be drawn; give (S, P, 2).")
    return tracks


def _moments(times: Sequence[float] | None, count: int) -> list[float]:
    if times is None:
        return [float(t) for t in np.linspace(0, 1, count)]
    if len(times) != count or not all(0 <= t <= 1 for t in times):
        raise ShapeError(f"{len(times)} times for {count} moments; give one each, in [0, 1].")
    return list(times)


def _extent(clouds: Sequence[Points]) -> Extent:
    """A square that holds nearly all points of all moments."""
    every = np.concatenate(clouds)
    if not len(every):
        return -1.0, 1.0, -1.0, 1.0
    low, high = np.quantile(every, 0.002, axis=0), np.quantile(every, 0.998, axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) * 0.56, 1e-6)
    (x, y), h = middle.tolist(), half
    return x - h, x + h, y - h, y + h


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _bins(values: NDArray[np.float64]) -> Any:
    """About as many as the cube root of the samples asks for, the usual choice."""
    return int(np.clip(2 * len(values) ** (1 / 3), 10, 120))
