"""Server program of `coma-gen serve`: MLflow's scoring app behind a request guard.

`coma-gen play` uses the same guard and socket setup for its own app.

`coma-gen serve` replaces itself with this program (`python app.py ...`). It imports nothing of the library,
so that the copy of the library that was registered with the weights is the one that runs them.

MLflow's app accepts bodies of any size, echoes them in error messages, answers some invalid JSON with status
500, and ignores unknown keys. The guard validates requests first and rejects those for other hosts (403,
against DNS rebinding), of another content type than JSON (415), too large (413) or not {"inputs": [{...},
...]} (400). Error responses are reduced to their reason.
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
"""Timeout of a request in seconds: MLflow then answers 504, although generation continues to its end."""
GRACE = 3
"""Seconds that running requests have to finish at shutdown."""
DRAINED = 16
"""Bodies that are too long are read and discarded up to this multiple of the limit, since a client
that is still sending does not read the error response.
"""
WAITING = 64
"""Maximum number of concurrent connections or requests; more are answered with 503."""


class RefusedError(Exception):
    """A request that the guard rejects."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestGuard:
    """ASGI middleware that validates requests.

    Args:
        app: The wrapped app: MLflow's, or that of `coma-gen play`.
        max_body_bytes: Maximum size of a request body.
        checks: Path -> function that validates the JSON body of a POST, or raises `RefusedError`.
    """

    def __init__(self, app: App, *, max_body_bytes: int, checks: Mapping[str, Check] | None = None) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes
        self._checks = {INVOCATIONS: _check_content} if checks is None else checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request to the app, or rejects it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _ErrorFilter(send)
        try:
            headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
            _check_host(headers)
            check = self._checks.get(scope["path"])
            if check is not None and scope["method"] == "POST":
                body = await self._body(headers, receive)
                check(body)
                receive = _replay(body, receive)
            await self._app(scope, receive, answer.take)
        except RefusedError as error:
            await answer.refuse(error.status, str(error))
        except Exception:
            logging.getLogger(__name__).exception("a request could not be answered")
            await answer.refuse(500, "internal error; see the terminal of the server")

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        kind = headers.get("content-type", "none").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, f"Content-Type must be application/json, got {kind[:100]}")
        body, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._max_body_bytes:
            message = await receive()
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= self._max_body_bytes:
                body += part
        if size > self._max_body_bytes:
            raise RefusedError(413, f"a request must have at most {self._max_body_bytes:,} bytes")
        return bytes(body)


class _ErrorFilter:
    """Passes responses on; error responses are reduced to their reason."""

    def __init__(self, send: Send) -> None:
        self._send, self._status = send, 0
        self._body = bytearray()

    async def take(self, message: Message) -> None:
        """Handles one message of the app's response."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif self._status:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.refuse(self._status, _extract_reason(bytes(self._body)))
        else:
            await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Sends a complete error response."""
        body = json.dumps({"error": reason}).encode() + b"\n"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # part of the request body may be unread
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
    except (ValueError, RecursionError):  # includes huge integers and invalid UTF-8
        raise RefusedError(400, "the body must be JSON") from None
    rows = content.get("inputs") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RefusedError(400, 'the body must be {"inputs": [{...}, ...]} and nothing else')


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that first returns the body that was already read."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return parts.pop() if parts else await receive()

    return read


def _extract_reason(body: bytes) -> str:
    """Extracts the reason from an error response of MLflow, without the echoed request and traceback."""
    try:
        content = json.loads(body)
    except ValueError:
        return body[:300].decode("utf-8", "replace").strip()
    if not isinstance(content, dict):
        return str(content)[:300]
    reasons = [content[name] for name in ("message", "detail", "error") if name in content]
    message = str(reasons[0] if reasons else content)
    return message.rpartition("\nError: ")[2][:4000]


def listen(port: int) -> socket.socket:
    """Binds a port on 127.0.0.1; called before the model is loaded, to fail early."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        sys.exit(f"coma-gen: port {port} of {HOST}: {error.strerror}. Name another one with --port")
    return listening


def _load_app(model: str) -> Any:
    """Creates MLflow's scoring app for the model."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import init, load_model_with_mlflow_config

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        app = init(load_model_with_mlflow_config(model))  # type: ignore[no-untyped-call]
        app.add_api_route("/", _describe_endpoints)
        return app
    except (MlflowException, OSError) as error:
        sys.exit(f"coma-gen: {model}: must be a model that MLflow has, got {str(error).splitlines()[0]}")
    except Exception as error:  # UserError of the packed library, whose class is unknown here
        sys.exit(f"coma-gen: {model}: {error}")


def _describe_endpoints() -> dict[str, str]:
    """Returns the response to a browser that opens the address of the server."""
    return {"music": f"POST {INVOCATIONS}, see docs/serving.md", "a page for people": "coma-gen play"}


def serve(model: str, *, name: str, port: int, max_body_bytes: int) -> None:
    """Serves an MLflow model, shown to users as `name`, until the process is stopped."""
    listening = listen(port)
    app = RequestGuard(_load_app(model), max_body_bytes=max_body_bytes)
    run_until_stopped(app, listening, lambda address: _print_usage(name, address))


def run_until_stopped(app: App, listening: socket.socket, announce: Callable[[str], None]) -> NoReturn:
    """Serves an app until the process is stopped, then exits.

    Args:
        app: The app.
        listening: The bound socket.
        announce: Called with the server's address once it accepts requests.
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
    loop.create_task(_announce_when_ready(server, lambda: announce(address)))  # noqa: RUF006 - it is short
    try:
        loop.run_until_complete(serving)
    except KeyboardInterrupt:
        sys.stdout.write("\nended\n")
    sys.stdout.flush()
    os._exit(0)  # a running generation thread would delay interpreter exit


async def _announce_when_ready(server: Any, announce: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    announce()
    sys.stdout.flush()


def _print_usage(model: str, server: str) -> None:
    address = f"{server}{INVOCATIONS}"
    sys.stdout.write(
        f"{model} is served at {address}, on this machine only.\n"
        "To continue my.mid by 20 s, run in another terminal:\n\n"
        """  printf '{"inputs": [{"midi": "%s", "seconds": 20}]}' "$(base64 < my.mid | tr -d '\\n')" \\\n"""
        f"    | curl -sS {address} -H 'Content-Type: application/json' -d @- \\\n"
        """    | sed 's/.*"midi": "//; s/".*//' | base64 -d > continued.mid\n\n"""
        "Stop with Ctrl-C.\n"
    )


def main() -> None:
    """Parses the command line that `coma-gen serve` composes."""
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
