"""Every figure, drawn with ordinary and with awkward words and numbers, and what it must show."""

import functools
import itertools
import subprocess
import sys
import threading
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb as colour
from matplotlib.text import Text
from PIL import Image

from couette.errors import InputError, ShapeError
from couette.render import density, plan, plots
from couette.render.plots import Levels
from couette.render.style import ALARM, COLOURS, DPI, label, settings

STEPS = np.arange(400.0)
LOSS = 0.02 + 0.3 * np.exp(-STEPS / 30) + 0.002 * np.cos(STEPS)
GAPPED = np.where(STEPS % 97 == 5, np.nan, LOSS)
T = np.linspace(0, 1, 101)
LINEAR = Levels(T, np.cos(T * 1.5), np.sin(T * 1.5), np.linspace(1e-4, 0.02, 101))
EDM = Levels(T, np.ones_like(T), 0.002 * (80 / 0.002) ** T)
CLOUDS = [np.random.default_rng(i).normal(size=(500, 2)) * (1 + i) for i in range(4)]
PATHS = np.linspace(0, 1, 20)[:, None, None] * np.array([[1.0, 2.0], [-1.0, 0.5]])
LONG = "a long name that says everything there is to say about the one thing that it names"
AWKWARD = "5$ a piece, 100 % of $\\nonsense{ 字 & x_t^"


def block(name, channels, side, parameters):
    return SimpleNamespace(
        name=name, channels=channels, height=side, width=side, parameters=parameters
    )


UNET = [
    block("time embedding", 128, 1, 999),
    block("conv in", 32, 28, 320),
    block("down", 64, 14, 4_000),
    block(LONG, 128, 7, 10_000_000),
    block("middle", 128, 7, 50),
    block("up", 128, 7, 60),
    block("up", 64, 14, 70),
    block("up", 32, 28, 80),
    block("conv out", 1, 28, 90),
    block("a vector", 128, None, 7),
    block("not run", None, None, 3),
]

FIGURES = {
    "curves": (
        plots.curves,
        (
            {
                "raw": (STEPS, LOSS),
                AWKWARD: (STEPS, GAPPED),
                r"$\sqrt{\bar\alpha_t}$": (STEPS, LOSS),
            },
        ),
        {"x": r"noise level $\sigma$", "y": LONG, "title": LONG, "log_x": True, "log_y": True},
    ),
    "loss": (
        plots.loss_curve,
        ({"a": (STEPS, LOSS), LONG: (STEPS, GAPPED)},),
        {
            "bins": {f"σ from {i} to {i + 1}": (STEPS, LOSS * i) for i in range(5)},
            "epochs": {"a": ([199, 399], [0.03, 0.02])},
            "title": AWKWARD,
        },
    ),
    "loss, single point": (plots.loss_curve, ({"": ([1], [float("nan")])},), {"log": True}),
    "schedules": (
        plots.schedules,
        ({"linear": LINEAR, "edm": EDM, LONG: LINEAR},),
        {"title": LONG},
    ),
    "schedules without beta": (plots.schedules, ({"edm": EDM},), {}),
    "bars": (
        plots.bars,
        ([LONG, AWKWARD, "c"], {"raw": [1, float("nan"), 3], "averaged": [3, 2, 1]}),
        {"x": "class", "y": "share", "title": "By class", "reference": (LONG, 0.5)},
    ),
    "histograms": (
        density.histograms,
        ({"$X$": CLOUDS[0][:, 0], "$Y = 5X + 3$": 5 * CLOUDS[0][:, 0] + 3},),
        {"densities": {"$X$": (T, T)}, "title": LONG},
    ),
    "conditionals": (
        density.conditionals,
        (*CLOUDS[0].T, {155.0: (T, T), 170.0: (T, 1 - T)}),
        {"title": "Weight given height"},
    ),
    "dye": (
        density._dye,
        (CLOUDS, [f"$t$ = {i}" for i in range(4)], PATHS, [0, 0.3, 0.6, 1], None, 3, "Dye"),
        {},
    ),
    "plan": (plan.network_plan, (UNET,), {"title": "A network"}),
    "plan of one size": (plan.network_plan, ([block(AWKWARD, 8, 1, 5)] * 3,), {}),
    "plan with a lone bottom": (plan.network_plan, (UNET[1:5] + UNET[6:],), {"title": LONG}),
}


@functools.cache
def built(name):
    """The matplotlib figure behind a picture, laid out."""
    make, arguments, words = FIGURES[name]
    with settings():
        figure = make.__wrapped__(*arguments, **words)
        figure.canvas.draw()
    return figure


def written(figure):
    """(words, bounding box in pixels) of all that is written; ticks outside their axis are not."""
    renderer = figure.canvas.get_renderer()
    hidden = {
        text
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for text in (tick.label1, tick.label2)
        if not axes.axison or not _inside(axis, tick)
    }
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text() not in ("", "\n")]
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in texts
        if text not in hidden and not (text.axes is not None and not text.axes.get_visible())
    ]


def _inside(axis, tick):
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high


@pytest.mark.parametrize("name", FIGURES)
def test_words_lie_inside_the_figure_and_apart(name):
    figure = built(name)
    words = written(figure)
    assert words
    for text, box in words:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in itertools.combinations(words, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        # A box holds the room for ascenders too, so boxes may touch by two pixels without the ink.
        assert across <= 2 or along <= 2, f"{one!r} lies on {other!r}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_picture_of_the_size_that_was_laid_out(name):
    make, arguments, words = FIGURES[name]
    image = make(*arguments, **words)
    assert image.mode == "RGB"
    assert image.size == tuple(int(side) for side in built(name).bbox.size)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert len(image.getcolors(1 << 24)) > 10


def test_the_users_settings_are_neither_used_nor_changed():
    plain = plots.curves({"a": (STEPS, LOSS)}, x="x")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert plots.curves({"a": (STEPS, LOSS)}, x="x").tobytes() == plain.tobytes()
        assert dict(matplotlib.rcParams) == before


def test_matplotlib_waits_for_the_first_figure():
    code = "import couette.render, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_no_font_or_formula_can_show_is_shown_as_it_stands():
    assert label("5$ a piece") == r"5\$ a piece"
    assert label(r"$\nonsense$ x") == r"\$\nonsense\$ x"
    assert label(r"$\bar\alpha_t$ at $t$") == r"$\bar\alpha_t$ at $t$"
    assert label("α\u0304 字") == "ᾱ □"
    assert label("one two three", 8) == "one two\nthree"


def test_threads_draw_the_same_picture():
    expected = plots.curves({"a": (STEPS, LOSS)}).tobytes()
    drawn = []
    threads = [
        threading.Thread(target=lambda: drawn.append(plots.curves({"a": (STEPS, LOSS)}).tobytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [expected] * 4


def test_losses_that_are_not_finite_are_marked():
    def marks(losses):
        with settings():
            figure = plots.loss_curve.__wrapped__({"run": (STEPS, losses)})
        lines = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
        return [x for line in lines for x in line.get_xdata()]

    assert marks(LOSS) == []
    assert marks(GAPPED) == [5, 102, 199, 296, 393]


def test_a_loss_that_starts_high_does_not_flatten_the_rest():
    with settings():
        figure = plots.loss_curve.__wrapped__({"": (STEPS, np.r_[[1000.0] * 3, LOSS[3:]])})
        low, high = figure.axes[0].get_ylim()
    assert low == 0
    assert LOSS[100:].max() < high < 1


def test_running_median_passes_over_outliers_and_gaps():
    losses = np.full(1000, 2.0)
    losses[::7] = 1e6
    losses[3::7] = np.nan
    steps, medians = plots.running_median(np.arange(1000), losses)
    assert steps[0] == 0 and steps[-1] == 999 and len(steps) == 300
    assert (medians == 2.0).all()
    assert np.isnan(plots.running_median([0, 1], [np.nan, np.inf])[1]).all()


def test_running_median_of_a_slope_is_the_slope():
    steps, medians = plots.running_median(np.arange(500), np.arange(500) * 3.0)
    inner = (steps >= 5) & (steps <= 494)
    assert np.array_equal(medians[inner], 3 * steps[inner])


def test_log_snr_is_right_and_has_gaps_at_the_infinite_ends():
    found = plots._log_snr(np.array([1.0, 0.6, 0.0]), np.array([0.0, 0.8, 1.0]))
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == pytest.approx(np.log(0.36 / 0.64))


def test_schedule_panels_hold_the_levels():
    with settings():
        figure = plots.schedules.__wrapped__({"linear": LINEAR})
    beta, bar, mix, snr = figure.axes
    assert np.array_equal(beta.lines[0].get_ydata(), LINEAR.beta)
    assert np.allclose(bar.lines[0].get_ydata(), np.cos(T * 1.5) ** 2)
    assert np.array_equal(mix.lines[1].get_ydata(), LINEAR.sigma)
    assert np.allclose(snr.lines[0].get_ydata()[1:], -2 * np.log(np.tan(T[1:] * 1.5)))


def test_density_is_dark_where_the_points_are():
    corner = np.random.default_rng(0).uniform(0, 1, (4000, 2))
    image = np.asarray(density.dye([corner], extent=(-1, 1, -1, 1)).convert("L")).astype(float)
    high, wide = image.shape
    inside = slice(high // 10, high // 2 - 10), slice(wide // 2 + 10, wide - wide // 10)
    opposite = slice(high // 2 + 10, high - high // 10), slice(wide // 10, wide // 2 - 10)
    assert image[inside].mean() < 150
    assert image[opposite].min() == 255


def test_paths_grow_from_panel_to_panel():
    with settings():
        figure = density._dye.__wrapped__(CLOUDS[:3], [], PATHS, [0, 0.5, 1], None, 3, "")
    lengths = [len(axes.lines[0].get_xdata()) for axes in figure.axes]
    assert lengths == [1, 11, 20]
    assert axes_ends(figure) == [(0.0, 0.0), tuple(PATHS[10, 0]), tuple(PATHS[19, 0])]


def axes_ends(figure):
    return [
        (float(a.lines[0].get_xdata()[-1]), float(a.lines[0].get_ydata()[-1])) for a in figure.axes
    ]


def test_dye_frames_share_one_size_and_one_extent():
    frames = density.dye_frames(CLOUDS, titles=["1", "2", "3", "4"], paths=PATHS)
    assert len(frames) == 4
    assert len({frame.size for frame in frames}) == 1
    dark = [(np.asarray(frame.convert("L")) < 200).mean() for frame in frames]
    assert dark[0] < dark[-1]


def test_points_that_are_not_finite_are_left_out():
    cloud = np.vstack((CLOUDS[0], [[np.nan, 0], [np.inf, 1]]))
    assert density.dye([cloud]).tobytes() == density.dye([CLOUDS[0]]).tobytes()


def places(blocks):
    down, bottom, up, aside = plan._parts(blocks)
    placed, bands, lines = plan._lay_out(down, bottom, up)
    return placed, bands, lines, aside


def test_the_plan_is_a_u():
    placed, bands, lines, aside = places(UNET)
    assert [b.name for b in aside] == ["time embedding", "a vector", "not run"]
    assert [item.block.name for item in placed] == [b.name for b in UNET[1:-2]]
    assert [item.column for item in placed] == [plan._LEFT] * 3 + [plan._MIDDLE] + [plan._RIGHT] * 4
    assert [item.line for item in placed] == [0, 2, 3, 4, 3, 2, 1, 0]
    assert [band.text for band in bands] == ["28 × 28", "14 × 14", "7 × 7"]
    assert lines == 6


def test_blocks_of_one_resolution_share_a_line_or_follow_each_other():
    placed, *_ = places([b for b in UNET if b.name != "middle"])
    taken = [(item.column, item.line) for item in placed]
    assert len(set(taken)) == len(taken)
    assert {item.column for item in placed} == {plan._LEFT, plan._RIGHT}


@pytest.mark.parametrize(
    "names, before, lone", [("ab", 1, None), ("abc", 1, "b"), (["a", "b", "mid", "c"], 2, "mid")]
)
def test_the_path_turns_at_the_middle_block(names, before, lone):
    left, at, right = plan._turn([block(name, 8, 7, 1) for name in names])
    assert len(left) == before
    assert (at.name if at else None) == lone
    assert [b.name for b in (*left, *([at] if at else []), *right)] == list(names)


def test_box_sizes_tell_channels_and_resolution():
    with settings():
        figure = plan.network_plan.__wrapped__(UNET)
    boxes = {tuple(np.round(p.get_facecolor()[:3], 3)): [] for p in figure.axes[0].patches}
    for patch in figure.axes[0].patches:
        boxes[tuple(np.round(patch.get_facecolor()[:3], 3))].append(patch)
    left = boxes[tuple(np.round(colour(COLOURS[0]), 3))]
    assert [patch.get_width() for patch in left] == pytest.approx([0.25, 0.5, 1.0])
    heights = [patch.get_height() for patch in left]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 3


def test_the_sum_of_the_parameters_is_written():
    words = [text for text, _ in written(built("plan"))]
    assert f"{sum(b.parameters for b in UNET):,} parameters" in words


def test_figures_measure_what_their_resolution_says():
    image = plots.curves({"a": (STEPS, LOSS)})
    assert image.size == (7 * DPI, int(3.8 * DPI))
    assert isinstance(image, Image.Image)


def test_bars_write_their_values_and_the_reference_is_a_line():
    with settings():
        figure = plots.bars.__wrapped__(["a", "b"], {"x": [0.25, 0.5]}, reference=("chance", 0.1))
    axes = figure.axes[0]
    assert [patch.get_height() for patch in axes.patches] == [0.25, 0.5]
    assert [text.get_text() for text in axes.texts] == ["0.25", "0.5"]
    assert axes.lines[0].get_ydata() == [0.1, 0.1]


def test_colours_are_apart_for_the_colour_blind():
    """Neighbours in the cycle differ after Viénot's (1999) reduction to what a deuteranope sees."""
    rgb = np.array([colour(c) for c in (*COLOURS, ALARM)][:4]) ** 2.2
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    seen = to_lms @ rgb.T
    seen[1] = 0.494207 * seen[0] + 1.24827 * seen[2]
    back = (np.linalg.inv(to_lms) @ seen).clip(0, 1) ** (1 / 2.2)
    gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(back.T, 2)]
    assert min(gaps) > 0.15


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: plots.curves({}), "nothing to plot"),
        (lambda: plots.curves({"a": ([1, 2], [1])}), "'a' has x of shape"),
        (lambda: plots.loss_curve({"a": ([], [])}), "not empty"),
        (lambda: plots.schedules({}), "at least one"),
        (lambda: plots.schedules({"s": Levels([1], [1, 2], [1])}), "'s' has arrays"),
        (lambda: plots.bars(["a", "b"], {"x": [1]}), "2 labels"),
        (lambda: density.histograms({"x": [np.nan]}), "finite"),
        (lambda: density.conditionals([1], [1, 2], {}), "one length"),
        (lambda: density.dye([]), "none"),
        (lambda: density.dye([np.zeros((3, 3))]), "(3, 3)"),
        (lambda: density.dye(CLOUDS, paths=np.zeros((2, 2))), "(S, P, 2)"),
        (lambda: density.dye(CLOUDS, times=[0, 1]), "2 times for 4"),
        (lambda: plan.network_plan([]), "at least one"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, words):
    with pytest.raises(ShapeError) as error:
        make()
    assert words in str(error.value)


def test_more_titles_than_moments_are_refused():
    with pytest.raises(InputError, match="5 titles for 4"):
        density.dye(CLOUDS, titles=list("abcde"))
