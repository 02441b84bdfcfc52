from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from couette.config import DataConfig
from couette.data import open_data
from couette.data.hub import open_tables
from couette.errors import ConfigError, DataError


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    return pytest.importorskip("datasets", reason="the [data] extra is not installed")


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def picture(seed: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def table(datasets: Any, count: int, **columns: Any) -> Any:
    features = {"img": datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}}
    rows = {"img": [picture(row) for row in range(count)]}
    rows |= {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_a_saved_set_with_splits_classes_and_captions(datasets: Any, tmp_path: Path) -> None:
    kinds = datasets.ClassLabel(names=["cat", "dog"])
    both = {"label": (kinds, [1, 0, 1]), "caption": (datasets.Value("string"), ["a", None, "c"])}
    found = datasets.DatasetDict(
        train=table(datasets, 3, **both),
        test=table(datasets, 2, label=(kinds, [0, 1])),
        extra=table(datasets, 1),
    )
    found.save_to_disk(str(tmp_path / "saved"))
    train, test = open_data(DataConfig(source=str(tmp_path / "saved")))
    assert test is not None and train.labels is not None and test.labels is not None
    assert (len(train), len(test)) == (3, 2)
    assert (train.classes, train.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert train.texts == ("a", "", "c")
    assert np.array_equal(train.values[2].numpy(), pixels(2))
    assert "Splits that were not used: extra." in train.notes


def test_one_table_is_split_and_bad_pictures_are_named(datasets: Any, tmp_path: Path) -> None:
    rows = [picture(row) for row in range(9)]
    rows[4] = {"bytes": rows[4]["bytes"][:300], "path": None}
    rows[6] = {"bytes": None, "path": "/etc/passwd"}
    found = datasets.Dataset.from_dict(
        {"image": rows}, features=datasets.Features({"image": datasets.Image()})
    )
    train, test = open_tables("made", found, DataConfig(holdout=0.2))
    assert test is not None and (len(train), len(test)) == (6, 1)
    assert "train[4] is truncated" in train.describe()
    assert "train[6] has no bytes in the table" in train.describe()


def test_a_set_without_pictures_is_refused(datasets: Any) -> None:
    found = datasets.Dataset.from_dict({"text": ["a", "b"]})
    with pytest.raises(DataError, match="no column of pictures in its split 'train', only text"):
        open_tables("made", found, DataConfig())


def test_a_damaged_saved_set_is_refused(datasets: Any, tmp_path: Path) -> None:
    table(datasets, 2).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="can't be read as a saved data set"):
        open_data(DataConfig(source=str(tmp_path / "saved")))


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install couette\[data\]"):
        open_data(DataConfig(source="hf:someone/something"))


def test_a_name_that_cannot_be_had_is_said(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    said = (
        r"'hf:someone/something' could not be had from the Hugging Face hub \(.*\); check the name"
    )
    with pytest.raises(DataError, match=said):
        open_data(DataConfig(source="hf:someone/something"))
    with pytest.raises(DataError, match="write hf:owner/name"):
        open_data(DataConfig(source="hf:something"))


def test_a_hub_that_does_not_answer_is_asked_once_and_quietly(
    datasets: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def silent(self: object, name: str, **_: object) -> None:
        asked.append(name)
        raise ConnectionError

    monkeypatch.setattr(hub.HfApi, "dataset_info", silent)
    monkeypatch.setattr(hub.utils._http, "http_backoff", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(DataError, match="could not be had"):
        open_data(DataConfig(source="hf:someone/something"))
    assert asked == ["someone/something"]
    assert not caplog.records
    assert not datasets.config.HF_HUB_OFFLINE
