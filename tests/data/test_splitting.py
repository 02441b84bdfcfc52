from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from couette.data.splitting import hold_out, limited


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.booleans(),
)
def test_hold_out_parts_the_rows_and_spares_small_classes(
    kinds: list[int], share: float, labelled: bool
) -> None:
    labels = np.array(kinds) if labelled else None
    kept, held = hold_out(len(kinds), labels, share)
    assert sorted([*kept, *held]) == list(range(len(kinds)))
    assert list(kept) == sorted(kept)
    if len(held):
        assert len(kept) >= 2
        if labels is not None:
            assert set(labels[kept]) == set(kinds)
    if share == 0:
        assert not len(held)


def test_each_class_gives_its_share() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    _, held = hold_out(160, labels, 0.1)
    assert np.bincount(labels[held]).tolist() == [10, 5, 1]


def test_at_least_one_is_held_out_where_three_are_there() -> None:
    assert [len(hold_out(count, None, 0.01)[1]) for count in (1, 2, 3, 100)] == [0, 0, 1, 1]


def test_the_choice_is_always_the_same() -> None:
    assert hold_out(20, None, 0.2)[1].tolist() == hold_out(20, None, 0.2)[1].tolist()
    assert limited(20, 5).tolist() == limited(20, 5).tolist()


def test_a_limit_keeps_a_spread_of_rows_and_larger_ones_contain_smaller() -> None:
    assert limited(10, None).tolist() == limited(10, 10).tolist() == list(range(10))
    small, large = limited(1000, 20), limited(1000, 40)
    assert len(set(small)) == 20
    assert set(small) <= set(large)
    assert small.max() > 500
