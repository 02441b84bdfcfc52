"""Models of the hub, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from couette.errors import CheckpointError
from couette.interop import open_words
from couette.opening import open_model
from interop import small_pipelines as small

constants = pytest.importorskip("huggingface_hub.constants")
SHA, LATER = "0" * 39 + "1", "0" * 39 + "2"


class Hub(BaseHTTPRequestHandler):
    """Answers for `some/model`, out of a folder; `gated/model` is handed to nobody."""

    folder: ClassVar[Path]
    later: ClassVar[Path | None]
    """What is uploaded in its place as soon as it has been listed."""
    changed: ClassVar[bool]
    asked: ClassVar[list[str]]

    def log_message(self, *words: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def commit(self, path: str) -> tuple[str, Path]:
        """The commit that is asked for, and its files."""
        if self.later and (LATER in path or (self.changed and SHA not in path)):
            return LATER, self.later
        return SHA, self.folder

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        type(self).asked.append(f"{self.command} {path}")
        if "gated/model" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "some/model" not in path:
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/"):
            sha, folder = self.commit(path)
            files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
            names = [str(p.relative_to(folder)) for p in files]
            listed = [{"rfilename": name} for name in names]
            told = {"id": "some/model", "sha": sha, "siblings": listed, "private": False}
            if "/tree/" in path:
                entries = [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": SHA}
                    for n, p in zip(names, files, strict=True)
                ]
                self.answer(200, json.dumps(entries).encode(), {})
            else:
                type(self).changed = self.later is not None
                self.answer(200, json.dumps(told).encode(), {})
        else:
            sha, folder = self.commit(path)
            data = (folder / path.partition("/resolve/")[2].partition("/")[2]).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            self.answer(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": sha})

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """The server, which the library asks from now on; its cache is empty."""
    small.pixels(tmp_path / "served")
    (tmp_path / "served/unet/diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "served/README.md").write_text("not needed")
    Hub.folder, Hub.later, Hub.changed, Hub.asked = tmp_path / "served", None, False, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_is_fetched_once(hub: ThreadingHTTPServer) -> None:
    model = open_model("some/model")
    assert model.shape == (3, 8, 8)
    files = [each for each in Hub.asked if each.startswith("GET /some/")]
    assert [each.partition("/resolve/")[2].partition("/")[2] for each in sorted(files)] == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    Hub.asked.clear()
    open_model("hf:some/model")
    assert [each for each in Hub.asked if each.startswith("GET /some/")] == []
    # Where the hub can't be reached, what was fetched serves.
    hub.shutdown()
    hub.server_close()
    assert open_model("some/model").config == model.config


def test_of_an_encoder_of_words_no_more_than_that_is_fetched(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    small.stable(tmp_path / "stable")
    Hub.folder = tmp_path / "stable"
    found = open_words("some/model").described
    assert found.source == "hf:some/model"
    assert found.digest == open_words(tmp_path / "stable").described.digest
    files = [each.partition("/resolve/")[2] for each in Hub.asked if each.startswith("GET /some/")]
    folders = {each.split("/")[1] for each in files}
    assert folders == {"model_index.json", "text_encoder", "tokenizer"}
    open_model("some/model")


def test_a_model_that_changes_meanwhile(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    """All that is fetched is of one commit, what was not there before as well."""
    small.pixels(tmp_path / "later", small.plain(sample_size=16))
    unet, weights = tmp_path / "later/unet", "diffusion_pytorch_model"
    (unet / f"{weights}.safetensors").rename(unet / f"{weights}.fp16.safetensors")
    Hub.later = tmp_path / "later"
    model = open_model("some/model")
    assert model.shape == (3, 16, 16)
    hub.shutdown()
    hub.server_close()
    assert open_model("some/model").config == model.config


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gated/model", "accepted its terms: do so on its page.*hf auth login.*HF_TOKEN"),
        ("no/model", "There is no folder 'no/model', and the Hugging Face hub has no such.*TOKEN"),
    ],
)
def test_what_the_hub_refuses(hub: ThreadingHTTPServer, name: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        open_model(name)


def test_pickles_are_not_even_fetched(hub: ThreadingHTTPServer) -> None:
    (Hub.folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"some/model/unet has its weights only as .*bin"):
        open_model("some/model")
    assert [each for each in Hub.asked if each.startswith("GET /some/")] == []


def test_without_network(hub: ThreadingHTTPServer) -> None:
    hub.shutdown()
    hub.server_close()
    told = "There is no folder 'some/model', and it could not be had .*check the name and the netw"
    with pytest.raises(CheckpointError, match=told):
        open_model("some/model")
