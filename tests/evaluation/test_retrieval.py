"""Recall on embeddings made by hand."""

from __future__ import annotations

import pytest
import torch

from couette.errors import DataError
from couette.evaluation import retrieval
from couette.evaluation.retrieval import alike, nearest_pictures, recall, zero_shot

EYE = torch.eye(6)


def test_right_pairs_are_found() -> None:
    found = recall(EYE, EYE, list("abcdef"), at=(1, 3))
    assert found.to_text == found.to_picture == {1: 1.0, 3: 1.0}
    assert found.chance == {1: pytest.approx(1 / 6), 3: pytest.approx(1 / 2)}


def test_ranks_are_counted_each_way() -> None:
    """Picture 0 likes text 1 better than its own; text 0 still finds picture 0."""
    pictures = EYE[:3].clone()
    texts = EYE[:3].clone()
    texts[1] = torch.tensor([2.0, 1, 0, 0, 0, 0])
    found = recall(pictures, texts, list("abc"), at=(1, 2))
    assert found.to_text == {1: pytest.approx(2 / 3), 2: 1.0}
    assert found.to_picture == {1: pytest.approx(2 / 3), 2: 1.0}


def test_equal_captions_are_equally_right() -> None:
    texts = EYE[[1, 0, 2, 3, 4, 5]]
    assert recall(EYE, texts, list("aabcde"), at=(1,)).to_text == {1: 1.0}
    assert recall(EYE, texts, list("abcdef"), at=(1,)).to_text == {1: pytest.approx(4 / 6)}
    twice = recall(EYE, EYE, list("aabcde"), at=(1,))
    assert twice.chance[1] == pytest.approx((2 * 2 / 6 + 4 * 1 / 6) / 6)


def test_embeddings_that_are_all_alike_find_nothing() -> None:
    same = torch.ones(6, 6)
    assert recall(same, same, list("abcdef"), at=(1, 5)).to_text == {1: 0.0, 5: 0.0}
    lost = torch.full((6, 6), torch.nan)
    assert recall(lost, lost, list("abcdef"), at=(1, 5)).to_text == {1: 0.0, 5: 0.0}


def test_rows_at_once_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, texts = torch.randn(2, 40, 8, generator=generator).unbind(0)
    captions = [str(i % 30) for i in range(40)]
    whole = recall(pictures, texts, captions)
    monkeypatch.setattr(retrieval, "_ROWS", 7)
    assert recall(pictures, texts, captions) == whole


def test_no_pairs() -> None:
    with pytest.raises(DataError, match="not on 0 pictures"):
        recall(EYE[:0], EYE[:0], [])
    with pytest.raises(DataError, match="6 pictures with 2 captions"):
        recall(EYE, EYE, list("ab"))


def test_fewer_pairs_than_any_k() -> None:
    assert recall(EYE[:3], EYE[:3], list("abc"), at=(5,)).lines()


def test_the_rest() -> None:
    torch.testing.assert_close(alike(EYE[:2] * 2), torch.tensor([[4.0, 0], [0, 4]]))
    assert zero_shot(EYE[[3, 0]], EYE).tolist() == [3, 0]
    which, near = nearest_pictures(torch.tensor([0.1, 0.9, 0.5, 0, 0, 0]), EYE, 2)
    assert which.tolist() == [1, 2] and near.tolist() == pytest.approx([0.9, 0.5])
    assert len(nearest_pictures(EYE[0], EYE, 99)[0]) == 6


def test_it_says_itself() -> None:
    lines = recall(EYE, EYE, list("abcdef"), at=(1, 3)).lines()
    assert lines[0] == (
        "Right captions found, of 6: 100.0% within 1, 100.0% within 3 (chance 50.0% within 3)."
    )
