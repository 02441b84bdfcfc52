from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from couette import places
from couette.config import DataConfig
from couette.data import open_data
from couette.errors import DataError, UnknownName
from couette.registry import DATASETS

Save = Callable[..., Path]


def test_the_names() -> None:
    assert list(DATASETS) == [
        *("cifar10", "digits", "fashion-mnist", "gaussians"),
        *("kmnist", "mnist", "moons", "shapes", "swiss-roll"),
    ]
    assert all(DATASETS.summary(name).endswith((".", ":")) for name in DATASETS)


def test_what_is_neither_name_nor_folder_is_refused() -> None:
    with pytest.raises(UnknownName, match="no folder or data set 'digts'"):
        open_data(DataConfig(source="digts"))


@pytest.mark.parametrize("given", ["./digits", "/no/such/folder", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there_is_no_misspelt_name(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"There is no folder '{given}'; check the path"):
        open_data(DataConfig(source=given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mnist/x", "did you mean 'mnist'? A data set of the Hugging Face hub is hf:mnist/x."),
        ("set/catz", "did you mean 'set/cats'? A data set of the Hugging Face hub is hf:set/catz."),
        ("./sett/cats", "did you mean 'set'?"),
        ("q/v", "check the path. A data set of the Hugging Face hub is hf:q/v."),
    ],
)
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(
    given: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("couette.data.sources.open_hub", lambda *_: pytest.fail("asked"))
    (tmp_path / "set" / "cats").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        open_data(DataConfig(source=given))
    assert str(caught.value) == f"There is no folder '{given}'; {words}"


def test_the_nearest_name_is_given() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fashion-mnist'"):
        open_data(DataConfig(source="fashion_mnist"))


def test_a_file_is_refused(save: Save) -> None:
    with pytest.raises(DataError, match="is a file; give the folder"):
        open_data(DataConfig(source=str(save("a.png"))))


def test_a_name_comes_before_a_folder_and_says_so(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("digits/a.png"), save("digits/b.png")
    monkeypatch.chdir(tmp_path / "set")
    train = open_data(DataConfig(source="digits")).train
    assert len(train) > 1000
    assert train.notes[-1] == "There is also a folder 'digits' here; write ./digits to use it."
    assert len(open_data(DataConfig(source="./digits", holdout=0)).train) == 2


def test_places_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUETTE_CACHE", str(tmp_path / "c"))
    assert places.cache_dir() == tmp_path / "c"
    assert places.data_roots() == (tmp_path / "c" / "data", Path("data"))
    monkeypatch.setenv("COUETTE_DATA", str(tmp_path / "d"))
    assert places.data_roots() == (tmp_path / "d",)
    monkeypatch.delenv("COUETTE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert places.cache_dir() == tmp_path / "x" / "couette"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert places.cache_dir() == Path.home() / ".cache" / "couette"
