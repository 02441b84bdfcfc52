"""Captions that are made of classes."""

from pathlib import Path

import pytest
import torch

from couette import api
from couette.config import DataConfig
from couette.data import Dataset, Splits, open_data
from couette.data.captions import captioned
from couette.errors import ConfigError, DataError
from couette.evaluation import Report
from small_runs import losses, session

DIGITS = DataConfig(source="digits", limit=60, captions=("a {word}", "the digit {}"))


def pets(**given: object) -> Splits:
    data = Dataset(
        "pets",
        torch.zeros(4, 8, 8, 1, dtype=torch.uint8),
        torch.tensor([0, 1, 1, 0]),
        ("cat", "dog"),
        **given,  # type: ignore[arg-type]
    )
    return Splits(data, None)


def test_each_template_in_turn() -> None:
    told = captioned(pets(), ("a {}", "my {word}")).train
    assert told.texts == ("a cat", "my dog", "a dog", "my cat")
    assert told.fingerprint != pets().train.fingerprint


def test_numbers_in_words() -> None:
    opened = open_data(DIGITS)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for data in opened:
        assert data is not None
        assert data.labels is not None and data.texts is not None
        for i, (label, text) in enumerate(zip(data.labels.tolist(), data.texts, strict=True)):
            assert text == (f"the digit {label}" if i % 2 else f"a {names[label]}")
    assert "captions are made of the classes" in opened.train.describe()


def test_names_that_look_like_places_or_numbers() -> None:
    odd = ("a{}", "9" * 5_000, "007")
    data = Dataset("odd", torch.zeros(3, 8, 8, 1, dtype=torch.uint8), torch.arange(3), odd)
    assert captioned(Splits(data, None), ("{word}!",)).train.texts == tuple(f"{n}!" for n in odd)


def test_of_other_data_none_are_made_where_none_can_be(tmp_path: Path) -> None:
    """A run with captions made of classes is measured on data that have none, too."""
    told = DataConfig(source="shapes", limit=20, captions=("a {}",))
    with pytest.raises(DataError, match="captions of its own"):
        open_data(told)
    assert (
        open_data(told, others=True).train.texts
        == open_data(told.model_copy(update={"captions": ()})).train.texts
    )
    texts = open_data(DIGITS, others=True).train.texts
    assert texts is not None and texts[1].startswith("the digit")


@pytest.mark.parametrize("template", ["a cat", "a {name}", "{} and {more}", "a {0}"])
def test_a_template_without_a_place(template: str) -> None:
    with pytest.raises(ConfigError, match="no place for the class"):
        captioned(pets(), (template,))


def test_pictures_without_classes_or_with_captions_of_their_own() -> None:
    with pytest.raises(DataError, match="has captions of its own"):
        captioned(pets(texts=("a", "b", "c", "d")), ("a {}",))
    bare = Splits(Dataset("bare", torch.zeros(2, 8, 8, 1, dtype=torch.uint8)), None)
    with pytest.raises(DataError, match="has no classes"):
        captioned(bare, ("a {}",))


@pytest.mark.parametrize("recipe", ["default", "autoencoder", "classifier"])
def test_what_reads_nothing_refuses_them(tmp_path: Path, recipe: str) -> None:
    settings = {"data": DIGITS.model_dump()}
    with pytest.raises(ConfigError, match="reads no captions"):
        session(tmp_path / "run", settings, recipe=recipe, length={"steps": 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_is_told_words_not_classes_and_judged_by_the_classes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {
        "data": {**DIGITS.model_dump(), "limit": 300},
        "network": "unet:size=tiny,width=16,reading=1",
        "training": {"batch": 8},
    }
    losses(session(out, settings, recipe="text-to-pixels", length={"steps": 2}))
    model = api.load(out)
    assert model.conditioner.classes == ()
    assert model.conditioner.words is not None
    report, _ = api.evaluate(out, count=20, steps=2, out=tmp_path / "evaluation")
    assert isinstance(report, Report)
    judged = report.samples["average"].judged
    assert judged is not None
    assert judged.accuracy is not None
    assert set(judged.by_class) <= set(map(str, range(10)))
