from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from couette import conditioners
from couette.conditioners import Captions, Conditioning, Labels, Words
from couette.contracts import Ask, TextSizes
from couette.data.tokenizer import Tokenizer
from couette.errors import InputError, StorageError, UnknownName
from couette.networks.text import Reader

ANIMALS = Labels(("cat", "dog", "3"))


def test_labels_and_none() -> None:
    told = ANIMALS([Ask(2), Ask(), Ask(0)])
    assert list(told) == ["label"]
    assert told["label"].dtype == torch.int64
    assert told["label"].tolist() == [2, 3, 0]


def test_nothing_asked_has_the_same_keys() -> None:
    assert ANIMALS([Ask()] * 2)["label"].tolist() == [3, 3]
    assert Labels()([Ask()] * 2) == {}


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_labels_out_of_range_are_refused(label: int) -> None:
    with pytest.raises(InputError, match=f"Label {label} is out of range; this model knows 0 to 2"):
        ANIMALS([Ask(0), Ask(label)])


def test_a_model_without_classes_takes_no_label() -> None:
    with pytest.raises(InputError, match="without labels"):
        Labels()([Ask(0)])
    with pytest.raises(InputError, match="without labels"):
        Labels().find("0")


def test_find_by_name_then_by_number() -> None:
    assert ANIMALS.find("dog") == 1
    assert ANIMALS.find("1") == 1
    assert ANIMALS.find("3") == 2  # a name that looks like a number is a name


@pytest.mark.parametrize(("given", "near"), [("dgo", "dog"), ("Cat", "cat")])
def test_find_names_the_near_miss(given: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"no label '{given}'; did you mean '{near}'"):
        ANIMALS.find(given)


@pytest.mark.parametrize("given", ["7", "-1", "", "²"])
def test_find_refuses_what_is_neither(given: str) -> None:
    with pytest.raises(UnknownName):
        ANIMALS.find(given)


WORDS = Words(Tokenizer.learned(["a red circle", "a blue square"] * 2, 300), 8)


class TestConditioning:
    def test_words_and_labels_together(self) -> None:
        told = Conditioning(("cat", "dog"), WORDS)([Ask(1, "a red circle"), Ask()])
        assert told["label"].tolist() == [1, 2]
        assert told["text"].shape == told["text_mask"].shape == (2, 8)
        assert told["text_mask"].sum(1).tolist() == [5, 2]

    def test_nothing_asked_is_the_empty_caption(self) -> None:
        told = Conditioning((), WORDS)([Ask(), Ask(words="")])
        assert torch.equal(told["text"][0], told["text"][1])
        assert told.keys() == {"text", "text_mask"}

    def test_a_label_for_a_model_that_reads_words_instead(self) -> None:
        for words, said in ((WORDS, '--prompt "a three"'), (None, "trained without labels")):
            with pytest.raises(InputError, match=said):
                Conditioning((), words).find("3")
            with pytest.raises(InputError, match=said):
                Conditioning((), words)([Ask(3)])

    def test_words_for_a_model_without(self) -> None:
        with pytest.raises(InputError, match="trained without captions"):
            Conditioning(("cat",))([Ask(words="a red circle")])
        assert Conditioning()([Ask()]) == {}


def test_captions_are_those_of_the_pictures() -> None:
    texts = ("a red circle", "a blue square", "a red circle", "")
    told = Captions(WORDS, texts)(torch.tensor([2, 3, 1]))
    expected = WORDS(["a red circle", "", "a blue square"])
    assert all(torch.equal(told[name], expected[name]) for name in expected)


def test_features_beyond_the_room_are_mapped_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded once for all runs on these captions, told as they are in memory."""
    torch.manual_seed(0)
    reader = Reader(TextSizes(8, WORDS.tokenizer.size), 16, 1)
    words, texts = Words(WORDS.tokenizer, 8, reader), ("a red circle", "", "a blue square", "")
    index, said = torch.tensor([2, 3, 1]), list[str]()
    calls: list[int] = []
    reader.register_forward_pre_hook(lambda *given: calls.append(1))
    held = Captions(words, texts)(index)
    monkeypatch.setattr(conditioners, "ROOM", 0)
    anew = Captions(words, texts, tell=said.append)(index)
    assert len(calls) == 2
    for _ in range(2):
        told = Captions(words, texts, digest="its own", tell=said.append)(index)
        assert len(calls) == 3
        assert all(torch.equal(told[name], held[name]) for name in held)
    torch.testing.assert_close(anew["text"], held["text"], rtol=1e-3, atol=1e-3)
    assert said == []
    monkeypatch.setattr(conditioners, "new_store", refusing)
    told = Captions(words, texts, digest="another", tell=said.append)(index)
    assert said == ["No room. Captions are encoded anew for every batch."]
    assert torch.equal(told["text"], anew["text"])


def refusing(*given: object) -> NoReturn:
    raise StorageError("No room.")
