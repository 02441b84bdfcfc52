from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from couette.config import DataConfig
from couette.data import open_data
from couette.data.download import Remote, fetch
from couette.data.idx import KINDS
from couette.errors import DataError, StorageError

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        if body is not None:
            cut = self.path.startswith("/cut")
            self.send_header("Content-Length", str(len(body) + (100 if cut else 0)))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as http:
        http.files, http.asked = {"/good": CONTENT, "/cut": CONTENT[:-100], "/bad": b"other"}, []
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield http
        http.shutdown()
        thread.join(10)


def remote(server: Server, *paths: str, most: int = 1 << 30) -> Remote:
    return Remote("file.bin", DIGEST, tuple(server.url + path for path in paths), most)


def test_the_first_mirror_with_the_right_file_is_taken(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    source = remote(server, "none", "bad", "good", "unasked")
    path = fetch(source, tmp_path / "new", lambda *news: told.append(news), seconds=10)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert server.asked == ["/none", "/bad", "/good"]
    assert told[-1] == ("fetching file.bin", len(CONTENT), len(CONTENT))


def test_what_is_there_and_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    fetch(remote(server, "good"), tmp_path, seconds=10)
    assert server.asked == []
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    assert fetch(remote(server, "good"), tmp_path, seconds=10).read_bytes() == CONTENT


def test_every_mirror_failing_says_why_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch(remote(server, "none", "bad", "cut"), tmp_path, seconds=10)
    for reason in ("HTTP 404", "its MD5 is", str(tmp_path)):
        assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_more_than_expected_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="larger than 1,000 bytes"):
        fetch(remote(server, "good", most=1000), tmp_path, seconds=10)


def test_nobody_listening_is_said(tmp_path: Path) -> None:
    with Server(("127.0.0.1", 0), Handler) as http:
        closed = Remote("file.bin", DIGEST, (http.url,))
    with pytest.raises(DataError, match="refused"):
        fetch(closed, tmp_path, seconds=10)


def test_a_folder_that_cannot_be_made_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="COUETTE_DATA"):
        fetch(remote(server, "good"), tmp_path / "file" / "inner", seconds=10)


def test_a_named_set_is_fetched_when_asked_and_goes_on_after_a_break(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(KINDS["kmnist"].md5)
    images = struct.pack(">HBB3I", 0, 8, 3, 4, 3, 3) + bytes(36)
    labels = struct.pack(">HBBI", 0, 8, 1, 4) + bytes(4)
    files = {name: gzip.compress(images if "images" in name else labels) for name in names}
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    server.files = {f"/kmnist/{name}": data for name, data in files.items()}
    kind = KINDS["kmnist"]._replace(mirrors=(server.url + "kmnist/",), md5=md5)
    monkeypatch.setitem(KINDS, "kmnist", kind)
    monkeypatch.setenv("COUETTE_DATA", str(tmp_path))
    config = DataConfig(source="kmnist", download=True)
    assert len(open_data(config).train) == 4
    (tmp_path / "KMNIST" / "raw" / names[3]).unlink()
    _, test = open_data(config)
    assert test is not None and test.labels is not None
    assert server.asked == [f"/kmnist/{name}" for name in (*names, names[3])]
