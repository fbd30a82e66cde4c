"""The program that serves a model: MLflow's scoring app behind a guard that bounds what may come in.

`coma-gen play` puts its own app behind the same guard, and listens in the same way.

`coma-gen serve` becomes this program (`python server.py ...`). It imports nothing of the library, so that the
copy of the library that was registered with the weights is the one that runs them.

MLflow's app takes bodies of any size, echoes them in its refusals, answers some of what is not JSON with
status 500, and passes over keys that it does not know. The guard reads a request first. What is for another
host than this machine (403: no web page can ask by a name of its own), not JSON (415), of too many bytes
(413) or not {"inputs": [{...}, ...]} (400) does not come through; and of a refusal only the reason goes out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NoReturn

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Check = Callable[[bytes], None]

HOST = "127.0.0.1"
NAMES = frozenset({HOST, "localhost"})
INVOCATIONS = "/invocations"
PATIENCE = 3600
"""Seconds that a request may take: MLflow answers 504 after them, but the work goes on to its end."""
GRACE = 3
"""Seconds that requests have to finish once the server was asked to end."""
DRAINED = 16
"""Of a body that is too long so many times the bound are read and dropped: a client that is still sending
does not hear why it was refused."""
WAITING = 64
"""Requests that may wait for their turn; more are answered 503 at once."""


class RefusedError(Exception):
    """A request that does not come through."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestGuard:
    """An ASGI app before another one.

    Args:
        app: MLflow's, or that of `coma-gen play`.
        max_body_bytes: of one request.
        checks: what a POST to a path must hold, by path: JSON, and what its check does not raise for.
    """

    def __init__(self, app: App, *, max_body_bytes: int, checks: Mapping[str, Check] | None = None) -> None:
        self._app, self._most = app, max_body_bytes
        self._checks = {INVOCATIONS: _check_content} if checks is None else checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
            _check_host(headers)
            check = self._checks.get(scope["path"])
            if check is not None and scope["method"] == "POST":
                body = await self._body(headers, receive)
                check(body)
                receive = _again(body, receive)
            await self._app(scope, receive, answer.take)
        except RefusedError as error:
            await answer.refuse(error.status, str(error))
        except Exception:
            logging.getLogger(__name__).exception("a request could not be answered")
            await answer.refuse(500, "the server failed; what it wrote on its terminal says why")

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        kind = headers.get("content-type", "none").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, f"Content-Type must be application/json, got {kind[:100]}")
        body, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._most:
            message = await receive()
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= self._most:
                body += part
        if size > self._most:
            raise RefusedError(413, f"a request must have at most {self._most:,} bytes")
        return bytes(body)


class _Answer:
    """What goes back: as it is, or, where it refuses, its reason alone."""

    def __init__(self, send: Send) -> None:
        self._send, self._status = send, 0
        self._body = bytearray()

    async def take(self, message: Message) -> None:
        """A part of the app's answer."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif self._status:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.refuse(self._status, _reason(bytes(self._body)))
        else:
            await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """The whole of a refusal."""
        body = json.dumps({"error": reason}).encode() + b"\n"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # there may be more of a body than was read
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _check_host(headers: Mapping[str, str]) -> None:
    host = headers.get("host", "")
    if host.rpartition(":")[0] not in NAMES and host not in NAMES:
        raise RefusedError(403, f"Host must be one of {', '.join(sorted(NAMES))}")
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        raise RefusedError(403, "Origin must be this server: no other page may ask")


def _check_content(body: bytes) -> None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # also whole numbers of thousands of digits, and what is no UTF-8
        raise RefusedError(400, "the body must be JSON") from None
    rows = content.get("inputs") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RefusedError(400, 'the body must be {"inputs": [{...}, ...]} and nothing else')


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read to whoever reads it next."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return parts.pop() if parts else await receive()

    return read


def _reason(body: bytes) -> str:
    """The reason of a refusal by MLflow, without the request that it repeats and without its traceback."""
    try:
        content = json.loads(body)
    except ValueError:
        return body[:300].decode("utf-8", "replace").strip()
    if not isinstance(content, dict):
        return str(content)[:300]
    told = [content[name] for name in ("message", "detail", "error") if name in content]
    message = str(told[0] if told else content)
    return message.rpartition("\nError: ")[2][:4000]


def listen(port: int) -> socket.socket:
    """A port of this machine; before the model is loaded, as that takes seconds."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        sys.exit(f"coma-gen: port {port} of {HOST}: {error.strerror}. Name another one with --port")
    return listening


def _loaded(model: str) -> Any:
    """MLflow's app around the model."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import init, load_model_with_mlflow_config

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        app = init(load_model_with_mlflow_config(model))  # type: ignore[no-untyped-call]
        app.add_api_route("/", _tell_the_way)
        return app
    except (MlflowException, OSError) as error:
        sys.exit(f"coma-gen: {model}: must be a model that MLflow has, got {str(error).splitlines()[0]}")
    except Exception as error:  # its own library's refusals, whose type is not of this process
        sys.exit(f"coma-gen: {model}: {error}")


def _tell_the_way() -> dict[str, str]:
    """What a browser shows that is led here."""
    return {"music": f"POST {INVOCATIONS}, see docs/serving.md", "a page for people": "coma-gen play"}


def serve(model: str, *, name: str, port: int, max_body_bytes: int) -> None:
    """Serves a model that MLflow finds, which people call by its name, until it is asked to end."""
    listening = listen(port)
    app = RequestGuard(_loaded(model), max_body_bytes=max_body_bytes)
    run_until_stopped(app, listening, lambda address: _tell_how_to_ask(name, address))


def run_until_stopped(app: App, listening: socket.socket, tell: Callable[[str], None]) -> NoReturn:
    """Answers requests until it is asked to end; then ends the process.

    Args:
        app: what answers.
        listening: where.
        tell: called with the server's address once it answers.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=WAITING,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    server = uvicorn.Server(config)
    loop = asyncio.new_event_loop()
    serving = loop.create_task(server.serve(sockets=[listening]))
    address = f"http://{HOST}:{listening.getsockname()[1]}"
    loop.create_task(_tell_when_ready(server, lambda: tell(address)))  # noqa: RUF006 - it is short
    try:
        loop.run_until_complete(serving)
    except KeyboardInterrupt:
        sys.stdout.write("\nended\n")
    sys.stdout.flush()
    os._exit(0)  # a piece that is still being made would hold the interpreter back


async def _tell_when_ready(server: Any, tell: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    tell()
    sys.stdout.flush()


def _tell_how_to_ask(model: str, server: str) -> None:
    address = f"{server}{INVOCATIONS}"
    sys.stdout.write(
        f"{model} is served at {address}, on this machine only.\n"
        "For 20 s more of my.mid, type in another terminal:\n\n"
        """  printf '{"inputs": [{"midi": "%s", "seconds": 20}]}' "$(base64 < my.mid | tr -d '\\n')" \\\n"""
        f"    | curl -sS {address} -H 'Content-Type: application/json' -d @- \\\n"
        """    | sed 's/.*"midi": "//; s/".*//' | base64 -d > continued.mid\n\n"""
        "Stop with Ctrl-C.\n"
    )


def main() -> None:
    """Reads the command line that `coma-gen serve` made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-body-bytes", type=int, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(PATIENCE)
    try:
        serve(**vars(options))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
