from __future__ import annotations

from itertools import combinations, pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from couette.laboratory.search import cheapest_path


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 7), st.data())
def test_the_cheapest_path_is_the_best_of_all(last: int, data: st.DataObject) -> None:
    """Against every way of choosing the stops between."""
    moves = data.draw(st.integers(1, last))
    values = data.draw(
        st.lists(st.floats(0, 10), min_size=(last + 1) ** 2, max_size=(last + 1) ** 2)
    )
    costs = torch.tensor(values, dtype=torch.float64).reshape(last + 1, last + 1)
    costs[torch.tril_indices(last + 1, last + 1).unbind()] = torch.inf

    def total(path: tuple[int, ...]) -> float:
        return sum(float(costs[i, j]) for i, j in pairwise(path))

    path = cheapest_path(costs, moves)
    best = min(total((0, *between, last)) for between in combinations(range(1, last), moves - 1))
    assert (len(path), path[0], path[-1]) == (moves + 1, 0, last)
    assert abs(total(tuple(path)) - best) < 1e-9
