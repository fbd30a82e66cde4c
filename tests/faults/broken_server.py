"""A web server on this machine that misbehaves, connection by connection."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Answer = Callable[[socket.socket, "BrokenServer"], None]
"""What is done with one connection once its request was read."""


class BrokenServer:
    """Gives its answers one a connection, the last one for ever.

    Attributes:
        answers: what it does.
        asked: the paths that were asked for.
        patience: how long an answer that hangs waits for the test to end (an event to wait on).
    """

    def __init__(self, answers: Sequence[Answer], *, certificate: Path | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self.port = self._listener.getsockname()[1]
        scheme, host = ("https", "localhost") if certificate else ("http", "127.0.0.1")
        self.address = f"{scheme}://{host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> BrokenServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(5)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                block = connection.recv(4096)
                if not block:
                    return
                request += block
            self.asked.append(request.split(b" ")[1].decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            with connection:
                answer(connection, self)


def head(length: int | None, *, status: str = "200 OK", **headers: str) -> bytes:
    """The beginning of an answer; a header's underscores stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def sends(*parts: bytes) -> Answer:
    """Sends bytes and closes."""

    def answer(connection: socket.socket, _: BrokenServer) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def resets(*parts: bytes) -> Answer:
    """Sends bytes and breaks the connection off, as a router that forgets it does."""

    def answer(connection: socket.socket, _: BrokenServer) -> None:
        for part in parts:
            connection.sendall(part)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def stalls(*parts: bytes) -> Answer:
    """Sends bytes, and then nothing, but stays."""

    def answer(connection: socket.socket, server: BrokenServer) -> None:
        for part in parts:
            connection.sendall(part)
        server.over.wait(30)

    return answer


def drips(first: bytes, rest: bytes, *, every: float) -> Answer:
    """Sends bytes, and then one at a time."""

    def answer(connection: socket.socket, server: BrokenServer) -> None:
        connection.sendall(first)
        for index in range(len(rest)):
            connection.sendall(rest[index : index + 1])
            if server.over.wait(every):
                return

    return answer
