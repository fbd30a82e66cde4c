"""The guard before MLflow's app, and the command that serves: what comes through, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from small_models import SCALE, written_model
from subprocess_utils import Job, attempt, environment, run, started, wait_until

from coma_gen.cli import serve
from coma_gen.cli.main import main
from coma_gen.core.errors import UserError
from coma_gen.midi.io import midi_bytes, read_notes
from coma_gen.serving.app import DRAINED, Message, Receive, RequestGuard, Scope, Send
from coma_gen.tracking.registry import register_model
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import Store
from coma_gen.workspace import pretrained
from coma_gen.workspace.paths import Workspace

JSON = {"content-type": "application/json"}
HERE = {"host": "127.0.0.1:5001"}
GOOD = b'{"inputs": [{"seconds": 1}]}'
MOST = 1000
SERVE = (sys.executable, "-m", "coma_gen.cli", "serve")


def through(
    *parts: bytes,
    headers: dict[str, str] = JSON | HERE,
    answer: tuple[int, bytes] = (200, b"fine"),
    path: str = "/invocations",
) -> tuple[int, bytes, list[bytes]]:
    """What comes back of a POST through the guard, and what the app behind it read."""
    read: list[bytes] = []
    sent: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        read.append(message["body"])
        assert not message["more_body"]
        if answer[0] == 0:
            raise ValueError("of the app")
        await send({"type": "http.response.start", "status": answer[0], "headers": []})
        await send({"type": "http.response.body", "body": answer[1][:9], "more_body": True})
        await send({"type": "http.response.body", "body": answer[1][9:]})

    messages = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": encoded}
    asyncio.run(RequestGuard(app, max_body_bytes=MOST)(scope, receive, send))
    assert [message["type"] for message in sent].count("http.response.start") == 1
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), read


def test_a_request_comes_through_in_one_piece_as_it_was_sent() -> None:
    assert through(GOOD[:5], GOOD[5:], b"") == (200, b"fine", [GOOD])


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (GOOD, HERE, 415, "must be application/json, got none"),
        (GOOD, HERE | {"content-type": "text/csv"}, 415, "got text/csv"),
        (GOOD, JSON, 403, "Host must be"),
        (GOOD, JSON | {"host": "evil.example:5001"}, 403, "Host must be"),
        (GOOD, JSON | {"host": "127.0.0.1.evil.example"}, 403, "Host must be"),
        (b" " * (MOST + 1), JSON | HERE, 413, "at most 1,000 bytes"),
        (b" " * (MOST * DRAINED + 1), JSON | HERE, 413, "at most 1,000 bytes"),
        (b"", JSON | HERE, 400, "must be JSON"),
        (b"\xff\xfe{", JSON | HERE, 400, "must be JSON"),
        (b"[" * MOST, JSON | HERE, 400, "must be JSON"),
        (b'{"inputs": [{"seed": ' + b"9" * (MOST - 30) + b"}]", JSON | HERE, 400, "must be JSON"),
        (b"[1]", JSON | HERE, 400, "inputs"),
        (b'{"inputs": []}', JSON | HERE, 400, "inputs"),
        (b'{"inputs": [1]}', JSON | HERE, 400, "inputs"),
        (b'{"inputs": [{}], "params": {}}', JSON | HERE, 400, "nothing else"),
        (b'{"instances": [{}]}', JSON | HERE, 400, "nothing else"),
    ],
)
def test_what_is_no_request_does_not(body: bytes, headers: dict[str, str], status: int, reason: str) -> None:
    got, answer, read = through(body, headers=headers)
    assert (got, read) == (status, [])
    assert reason in json.loads(answer)["error"]


def test_of_a_refusal_only_the_reason_goes_out() -> None:
    message = (
        "Failed to predict data '[{'midi': 'SECRET'}]'. \nError: inputs[0].seconds: must be\ninputs[0].x"
    )
    refusal = {"error_code": "X", "message": message, "stack_trace": "Traceback (most recent call last)"}
    status, body, _ = through(GOOD, answer=(400, json.dumps(refusal).encode()))
    assert (status, json.loads(body)) == (400, {"error": "inputs[0].seconds: must be\ninputs[0].x"})
    assert (
        json.loads(through(GOOD, answer=(503, b"Service Unavailable"))[1])["error"] == "Service Unavailable"
    )


def test_a_failure_of_the_app_says_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = through(GOOD, answer=(0, b""))
    assert status == 500 and b"of the app" not in body
    assert "of the app" in caplog.text


def ask(port: int, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with closing(connection):
        connection.request("POST", "/invocations", body, JSON | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def rows(*content: dict[str, Any]) -> bytes:
    return json.dumps({"inputs": list(content)}).encode()


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Path:
    """What `coma-gen` takes for a checkout, whose store has a model."""
    for name in ("dvc.yaml", "params.yaml"):
        (store.home / name).touch()
    run_id = find_or_start_run(store, key="a-1", name="a")
    register_model(store, run_id, folder=written_model(tmp_path), score=None)
    return store.home


@pytest.fixture
def serving(folder: Path, own_code: dict[str, str]) -> Iterator[tuple[Job, int]]:
    """The command, and the port that it says."""
    source = {"PYTHONPATH": own_code["PYTHONPATH"]}
    with started(folder, *SERVE, "--port", "0", "--max-seconds", "100000", env=source) as job:
        wait_until(lambda: "Ctrl-C" in job.output or job.process.poll() is not None, told=lambda: job.output)
        address = re.search(r"http://127\.0\.0\.1:(\d+)/invocations", job.output)
        assert address, job.output
        yield job, int(address[1])


@pytest.mark.slow
def test_the_bytes_are_those_of_the_command_line(
    serving: tuple[Job, int], own_code: dict[str, str], tmp_path: Path
) -> None:
    status, answer = ask(serving[1], rows({"seconds": 4, "seed": 5}))
    assert status == 200
    midi = base64.b64decode(json.loads(answer)["predictions"][0]["midi"])
    model, out = written_model(tmp_path / "again"), tmp_path / "typed"
    words = ["generate", "--model", str(model), "--seconds", "4", "--seed", "5", "--audio", "none"]
    env = environment() | {"PYTHONPATH": own_code["PYTHONPATH"]}
    command = [sys.executable, "-m", "coma_gen.cli", *words, "--out", str(out)]
    subprocess.run(command, check=True, env=env, capture_output=True)
    assert (out / "piece-01.mid").read_bytes() == midi


@pytest.mark.slow
def test_a_folder_is_served_too(folder: Path, own_code: dict[str, str], tmp_path: Path) -> None:
    """A store has nothing to do with it; what was packed is used again."""
    (folder / "mlflow.db").unlink()
    model, source = written_model(tmp_path / "other"), {"PYTHONPATH": own_code["PYTHONPATH"]}
    answers = []
    for _ in range(2):
        with started(folder, *SERVE, "--port", "0", "--model", str(model), env=source) as job:
            wait_until(
                lambda: "Ctrl-C" in job.output or job.process.poll() is not None, told=lambda: job.output
            )
            address = re.search(r"http://127\.0\.0\.1:(\d+)/invocations", job.output)
            assert address and f"{model} is served at" in job.output, job.output
            answers.append(ask(int(address[1]), rows({"seconds": 2, "seed": 5})))
    assert answers[0][0] == 200 and answers[0] == answers[1]
    assert len(list((folder / ".dvc" / "tmp" / "served").iterdir())) == 1


def test_what_is_served_where_nothing_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.here(tmp_path)
    assert serve._choose_default(workspace) == "pretrained"
    with monkeypatch.context() as named:
        named.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
        assert serve._choose_default(workspace) == serve.CHAMPION, "a store that was named is not passed over"
        named.setenv("MLFLOW_TRACKING_URI", "http://")
        with pytest.raises(UserError, match="must name a host"):
            serve._choose_default(workspace)
    monkeypatch.setattr(pretrained, "CANDIDATES", (tmp_path / "nowhere",))
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="no store there"):
        main(["serve"])


def what_the_page_says_to_type_works(job: Job, port: int, tmp_path: Path) -> None:
    """The command of docs/serving.md, and the one that the server itself writes."""
    if shutil.which("curl") is None:
        return
    page = (ROOT / "docs" / "serving.md").read_text()
    documented = re.search(r"```sh\n(printf .*?)```", page, re.DOTALL)
    written = re.search(r"^  (printf .*?)\n\n", job.output, re.DOTALL | re.MULTILINE)
    assert documented and written
    (tmp_path / "my.mid").write_bytes(midi_bytes(SCALE))
    for command in (documented[1], written[1]):
        short = command.replace(":5001/", f":{port}/").replace('"seconds": 20', '"seconds": 1')
        run(tmp_path, "bash", "-c", short)
        assert len(read_notes(tmp_path / "continued.mid")) >= len(SCALE)
        (tmp_path / "continued.mid").unlink()


@pytest.mark.slow
def test_it_answers_many_at_once_as_one_by_one_refuses_and_ends_at_ctrl_c(
    serving: tuple[Job, int], tmp_path: Path
) -> None:
    job, port = serving
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/")
        assert b"coma-gen play" in connection.getresponse().read(), "a person in a browser is shown the way"
    midi = base64.b64encode(midi_bytes(SCALE)).decode()
    requests = [rows({"midi": midi, "seconds": 1 + seed, "seed": seed, "tokens": 80}) for seed in range(5)]
    alone = [ask(port, request) for request in requests]
    assert [status for status, _ in alone] == [200] * 5 and len(set(alone)) == 5
    assert base64.b64decode(json.loads(alone[0][1])["predictions"][0]["midi"]).startswith(b"MThd")
    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(lambda request: ask(port, request), requests)) == alone
    for body, reason in ((rows({"secnds": 1}), "secnds"), (rows({"midi": "aGk="}), "MThd"), (b"{", "JSON")):
        status, answer = ask(port, body)
        assert status == 400 and reason in json.loads(answer)["error"]
    assert ask(port, requests[0], Host="evil.example")[0] == 403
    what_the_page_says_to_type_works(job, port, tmp_path)
    assert "Traceback" not in job.output
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(ask, port, rows({"seconds": 36_000, "tokens": 20_000, "num": 16}))
        wait_until(lambda: long.running())
        job.signal_group(signal.SIGINT)
        assert job.wait() == 0
        assert job.members("server.py") == []
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            long.result()


@pytest.mark.slow
def test_the_command_says_what_is_missing(
    folder: Path, own_code: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"PYTHONPATH": own_code["PYTHONPATH"]}
    ended, output = attempt(folder, *SERVE, "--model", "models:/coma-gen/7", env=source)
    assert ended == 1 and "Traceback" not in output
    assert "coma-gen: models:/coma-gen/7: must be a model that MLflow has" in output
    monkeypatch.chdir(folder)
    for words, reasons in (
        (
            ("--max-pieces", "0", "--port", "70000"),
            "(?s)--max-pieces: must be above 0.*--port: must be 0 to 65535",
        ),
        (("--at-once", "-1"), "--at-once: must be above 0"),
    ):
        with pytest.raises(SystemExit, match=reasons):
            main(["serve", *words])
    (folder / "mlflow.db").unlink()
    with pytest.raises(SystemExit, match="no store there"):
        main(["serve", "--model", "models:/coma-gen@champion"])
    with pytest.raises(SystemExit, match="nowhere: must be a model's folder"):
        main(["serve", "--model", "nowhere"])
