"""Downloads from a local server: complete and verified, or no file under the final name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.download import RetryPolicy, fetch

BODY = bytes(range(256)) * 5000
GOOD = (200, {}, BODY)


def get(server: Any, folder: Path, **options: Any) -> Path:
    retry = RetryPolicy(**{"back_off": 0.0, "timeout": 5.0, **options})
    path = folder / "cache" / "a.zip"
    return fetch(
        f"{server.address}/a.zip", sha256_bytes(BODY), path, remedy="use another source", retry=retry
    )


def refused(server: Any, folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        get(server, folder, **options)
    assert list((folder / "cache").glob("*")) == []
    assert list((folder / "cache").glob(".*")) == []
    return str(caught.value)


def test_a_good_file_is_fetched_once(server: Any, tmp_path: Path) -> None:
    server.answers = [GOOD]
    assert get(server, tmp_path).read_bytes() == BODY
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.asked == ["/a.zip"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.zip"]


def test_a_wrong_file_under_the_name_is_replaced(server: Any, tmp_path: Path) -> None:
    server.answers = [GOOD]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.zip").write_bytes(b"half of it")
    assert get(server, tmp_path).read_bytes() == BODY


def test_a_flipped_byte_is_refused(server: Any, tmp_path: Path) -> None:
    server.answers = [(200, {}, b"\xff" + BODY[1:])]
    text = refused(server, tmp_path)
    assert f"must have the SHA-256 {sha256_bytes(BODY)}" in text
    assert len(server.asked) == 2, "once more, in case that it was changed on its way"


def test_a_short_file_is_tried_again(server: Any, tmp_path: Path) -> None:
    short = (200, {"Content-Length": str(len(BODY))}, BODY[:1000])
    server.answers = [short, GOOD]
    assert get(server, tmp_path).read_bytes() == BODY
    server.answers = [short]
    assert "bytes too few after 2 attempts" in refused(server, tmp_path / "again", attempts=2)


def test_a_busy_server_is_tried_again(server: Any, tmp_path: Path) -> None:
    server.answers = [(503, {}, b"busy"), (429, {}, b"slower"), GOOD]
    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.asked) == 3


def test_a_missing_file_is_not(server: Any, tmp_path: Path) -> None:
    server.answers = [(404, {}, b"")]
    text = refused(server, tmp_path)
    assert "HTTP 404" in text
    assert "Use another source" in text
    assert len(server.asked) == 1


def test_nobody_there(server: Any, tmp_path: Path) -> None:
    server.close()
    assert "refused after 2 attempts" in refused(server, tmp_path, attempts=2)


def test_a_redirect_on_this_machine_is_followed(server: Any, tmp_path: Path) -> None:
    server.answers = [(302, {"Location": f"{server.address}/b.zip"}, b""), GOOD]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.asked == ["/a.zip", "/b.zip"]


@pytest.mark.parametrize(
    "target", ["http://example.org/a.zip", "ftp://127.0.0.1/a.zip", "file:///etc/passwd"]
)
def test_a_redirect_away_from_https_is_refused(server: Any, tmp_path: Path, target: str) -> None:
    server.answers = [(302, {"Location": target}, b"")]
    assert target in refused(server, tmp_path)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "ftp://example.org/a", "file:///etc/passwd", "a.zip"]
)
def test_only_https_is_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="https://"):
        fetch(url, "0" * 64, tmp_path / "a.zip", remedy="")


def test_a_folder_in_the_way_is_a_fault(server: Any, tmp_path: Path) -> None:
    server.answers = [GOOD]
    (tmp_path / "cache" / "a.zip").mkdir(parents=True)
    with pytest.raises(UserError, match="must be writable"):
        get(server, tmp_path)
