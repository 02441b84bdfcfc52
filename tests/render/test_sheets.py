import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from couette.errors import InputError, ShapeError
from couette.render.pixels import to_rgb
from couette.render.sheets import beside, columns_for, grid, nearest, steps, strip
from couette.render.style import ALARM


def pictures(count, channels=1, height=5, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator) * 1.8 - 0.9


def found(sheet, picture, scale):
    """Where the enlarged picture (H, W, 3) stands in the sheet, exactly: [(x, y), …]."""
    large = picture.repeat(scale, 0).repeat(scale, 1)
    high, wide = large.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(sheet), (high, wide, 3))
    same = (windows[:, :, 0, ::scale, ::scale] == picture).all(axis=(2, 3, 4))
    return [(x, y) for y, x in np.argwhere(same) if (windows[y, x, 0] == large).all()]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 10), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 3),
    st.integers(0, 4),
)  # fmt: skip
def test_cells_of_a_grid_hold_the_pictures(count, channels, columns, scale, pad):
    batch = pictures(count, channels)
    sheet = np.asarray(grid(batch, columns=columns, scale=scale, pad=pad))
    rows = -(-count // columns)
    across = min(columns, count)
    assert sheet.shape[:2] == (rows * (5 * scale + pad) + pad, across * (7 * scale + pad) + pad)
    for i, picture in enumerate(to_rgb(batch)):
        y, x = pad + i // columns * (5 * scale + pad), pad + i % columns * (7 * scale + pad)
        cell = sheet[y : y + 5 * scale, x : x + 7 * scale]
        assert np.array_equal(cell, picture.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("count, across", [(64, 8), (8, 4), (10, 5), (16, 4), (7, 3), (13, 4)])
def test_a_grid_is_full_where_it_can_be(count, across):
    batch = torch.full((count, 1, 4, 4), -1.0)
    sheet = grid(batch, scale=1, pad=1)
    assert (sheet.width - 1) // 5 == across


def test_words_stand_around_the_pictures_not_on_them():
    batch = pictures(6)
    sheet = grid(
        batch, columns=3, scale=4, labels=[f"class number {i}" for i in range(6)],
        column_titles=["a", "a much longer title", "c"], row_titles=["w = 1", "w = 2"],
        title="Classes",
    )  # fmt: skip
    places = [found(sheet, picture, 4) for picture in to_rgb(batch)]
    assert all(len(place) == 1 for place in places)
    corners = [place[0] for place in places]
    assert corners[0][1] == corners[1][1] == corners[2][1] < corners[3][1]
    assert corners[0][0] == corners[3][0] < corners[1][0]
    assert_margin_is_paper(sheet)


def assert_margin_is_paper(sheet, margin=6):
    """Nothing reaches the edge, so nothing is cut there."""
    values = np.asarray(sheet)
    for edge in (values[:margin], values[-margin:], values[:, :margin], values[:, -margin:]):
        assert (edge == 255).all()


@pytest.mark.parametrize("words", ["x" * 90, "many words " * 30, "a\nb\nc", "ᾱₜ = √0.5", "字"])
def test_words_of_any_length_stay_inside(words):
    sheet = grid(
        pictures(2), columns=2, scale=2, title=words, labels=[words, "b"], row_titles=[words],
        column_titles=["a", words],
    )  # fmt: skip
    assert_margin_is_paper(sheet)


def test_long_words_of_neighbours_do_not_touch():
    sheet = np.asarray(
        grid(torch.ones(2, 1, 4, 4), columns=2, scale=2, labels=["W" * 20, "W" * 20])
    )
    ink = (sheet < 128).any(axis=(0, 2)).nonzero()[0]
    assert np.diff(ink).max() >= 8


def test_a_strip_has_one_row_a_name_and_one_column_a_title():
    rows = {"input": pictures(3, seed=1), "noised": pictures(3, seed=2)}
    sheet = strip(rows, columns=["t = 0", "t = 1", "t = 2"], scale=2)
    first, second = ([found(sheet, p, 2)[0] for p in to_rgb(row)] for row in rows.values())
    assert [x for x, _ in first] == [x for x, _ in second]
    assert len({y for _, y in first}) == 1
    assert len({y for _, y in second}) == 1
    assert first[0][1] < second[0][1]
    assert_margin_is_paper(sheet)


def test_a_row_is_stretched_only_where_asked():
    wide = torch.tensor([-4.0, -1.0, 1.0, 4.0]).reshape(1, 1, 1, 4)
    sheet = strip({"clipped": wide, "whole": wide}, stretch=["whole"], scale=8)
    assert found(sheet, to_rgb(wide)[0], 8)
    assert found(sheet, to_rgb(wide, "stretch")[0], 8)
    with pytest.raises(InputError, match="'hole'"):
        strip({"whole": wide}, stretch=["hole"])


def test_gray_and_colour_noise_share_a_strip():
    gray, colour = pictures(1, 1)[0], pictures(1, 3)[0]
    sheet = strip({"": [gray, colour]}, columns=["black-and-white", "RGB"], scale=3)
    assert found(sheet, to_rgb([gray])[0], 3)
    assert found(sheet, to_rgb([colour])[0], 3)


def test_steps_put_the_prediction_beside_the_input():
    rows = [{"x": pictures(4, seed=i), "prediction": pictures(4, seed=9 + i)} for i in range(3)]
    sheet = steps(rows, names=["1", "2", "3"], scale=2)
    for row in rows:
        left = [found(sheet, p, 2)[0] for p in to_rgb(row["x"])]
        right = [found(sheet, p, 2)[0] for p in to_rgb(row["prediction"])]
        assert max(x for x, _ in left) < min(x for x, _ in right)
        assert {y for _, y in left} == {y for _, y in right}
    with pytest.raises(InputError, match="x, prediction"):
        steps([rows[0], {"prediction": pictures(4), "x": pictures(4)}])


def test_copies_are_framed_and_others_not():
    made, real = pictures(4, seed=1), pictures(4, seed=2)
    alarm = np.array([int(ALARM[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)

    def framed(copies):
        sheet = np.asarray(nearest(made, real, [1, 2, 3, 4.5], copies=copies, scale=4))
        return (sheet == alarm).all(axis=2)

    assert not framed(None).any()
    marked = framed([False, False, True, False])
    xs = marked.any(axis=0).nonzero()[0]
    sheet = nearest(made, real, [1, 2, 3, 4.5], copies=[False, False, True, False], scale=4)
    left, right = found(sheet, to_rgb(made)[2], 4)[0], found(sheet, to_rgb(real)[2], 4)[0]
    assert (xs.min(), xs.max()) == (left[0] - 3, right[0] + 7 * 4 + 2)
    assert left[1] == right[1]
    with pytest.raises(ShapeError, match="3 distances"):
        nearest(made, real, [1, 2, 3])


def test_sheets_stand_beside_each_other_unchanged():
    a, b = Image.new("RGB", (30, 20), "#102030"), Image.new("RGB", (50, 40), "#405060")
    values = np.asarray(beside({"raw": a, "averaged": b}, title="epoch 5"))
    assert (values == (16, 32, 48)).all(axis=2).sum() == 600
    assert (values == (64, 80, 96)).all(axis=2).sum() == 2000


def test_impossible_requests_are_refused():
    for wrong in ({"columns": 0}, {"scale": 0}, {"pad": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            grid(pictures(2), **wrong)
    with pytest.raises(InputError, match="3 labels for 2 pictures"):
        grid(pictures(2), labels=["a", "b", "c"])
    with pytest.raises(InputError, match="3 column titles for 2 columns"):
        strip({"": pictures(2)}, columns=["a", "b", "c"])
    for make in (lambda: strip({}), lambda: steps([]), lambda: beside({})):
        with pytest.raises(ShapeError, match="at least one"):
            make()


@pytest.mark.parametrize(
    ("classes", "columns"), [(0, None), (1, 10), (2, 10), (3, 9), (6, 6), (10, 10), (17, None)]
)
def test_a_column_is_of_one_class(classes: int, columns: int | None) -> None:
    found = columns_for(classes)
    assert found == columns
    assert found is None or found % classes == 0
