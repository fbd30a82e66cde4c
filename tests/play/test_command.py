"""`coma-gen play` as it is typed: what is wrong with it is said before anything is loaded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coma_gen.cli import play
from coma_gen.cli.main import main


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--port", "70000"), "coma-gen: --port: must be 0 to 65535, got 70000"),
        (("--threads", "0"), "coma-gen: --threads: must be 1 to 1024, got 0"),
        (("--max-seconds", "0"), "coma-gen: --max-seconds: must be above 0, got 0.0"),
        ((), "coma-gen: --model: outside of a coma-gen checkout a model must be named"),
        (("--model", "nowhere"), "coma-gen: nowhere: must be a model's folder"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["play", *words])
    assert str(ended.value).startswith(reason)


def test_a_port_that_is_taken_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["play", "--model", str(model), "--port", str(port)])
    assert str(ended.value).startswith(f"coma-gen: port {port} of 127.0.0.1: Address already in use")


@pytest.mark.parametrize(
    ("platform", "variables", "has_screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
    ],
)
def test_no_browser_is_opened_in_the_terminal(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], has_screen: bool
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert play._has_screen() == has_screen
