"""Small files and folders of music, built in code."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coma_gen.config.schema import DownloadParams, SplitParams
from coma_gen.corpus.table import Performance
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def midi() -> Callable[[int], bytes]:
    """A MIDI file of two seconds; another number, other notes."""

    def make(number: int) -> bytes:
        pitches = [40 + number % 50, 41 + number // 50 % 50]
        return midi_bytes(Notes.of([0.0, 1.0], [1.0, 1.0], pitches, [64, 1 + number % 127]))

    return make


@pytest.fixture
def row() -> Callable[..., Performance]:
    """A performance with only what matters to a test."""

    def make(name: str = "a.mid", **values: object) -> Performance:
        known = {"composer": "C", "title": "T", "split": "", "year": "", "duration": 2.0, **values}
        return Performance(midi_filename=name, **known)  # type: ignore[arg-type]

    return make


@pytest.fixture
def download() -> Callable[..., DownloadParams]:
    def make(corpus: str, **values: object) -> DownloadParams:
        settings = {
            "path": "own",
            "maestro_url": "https://example.org/maestro.zip",
            "maestro_sha256": "0" * 64,
            "synthetic_performances": 3,
            "synthetic_seconds": 6.0,
            "synthetic_seed": 0,
        }
        return DownloadParams.model_validate({"corpus": corpus, **settings, **values})

    return make


@pytest.fixture
def split_params() -> Callable[..., SplitParams]:
    def make(method: str = "official", **values: object) -> SplitParams:
        settings = {
            "validation_fraction": 0.1,
            "test_fraction": 0.1,
            "seed": 0,
            "composers_keep": (),
            "composers_drop": (),
            "composers_top": None,
            "composers_top_by": "hours",
            "max_unreadable": 0,
        }
        return SplitParams.model_validate({"method": method, **settings, **values})

    return make


class Server:
    """A web server on this machine that gives its prepared answers, one a request, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, headers, body = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.close()


@pytest.fixture
def own_folder(tmp_path: Path, midi: Callable[[int], bytes]) -> Path:
    """A person's own files, in no good order."""
    folder = tmp_path / "own"
    for number, name in enumerate(
        ["Bach/Invention_1.mid", "Bach/deep/two.MIDI", "top.mid", "Verdi - Liszt/ü x.mid"]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(midi(number))
    (folder / "notes.txt").write_text("not music")
    return folder
