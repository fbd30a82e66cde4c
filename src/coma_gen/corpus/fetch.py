"""One file from the network, whole and with the right digest, or none.

The file is streamed to a temporary name beside its place, its size and SHA-256 are compared, and only then it
takes its name: what stands under the final name has been proven. Only https, at every redirect too; plain
http is for the machine itself, for tests and mirrors.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from coma_gen.errors import Fault, UserError
from coma_gen.files import sha256_file

ATTEMPTS = 4
BACK_OFF = 1.0
"""Seconds before the second attempt; doubled before each further one."""

TIMEOUT = 30.0
"""Seconds without a byte after which an attempt has failed."""

MAX_BYTES = 2**30
WITHOUT_NETWORK = "without a network, use made-up music: .venv/bin/dvc exp run -S download.corpus=synthetic"
_BLOCK = 2**18
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NETWORK_ERRORS = (
    http.client.HTTPException,
    urllib.error.URLError,
    ssl.SSLError,
    TimeoutError,
    ConnectionError,
)
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


def fetch(
    url: str,
    sha256: str,
    destination: Path,
    *,
    remedy: str,
    attempts: int = ATTEMPTS,
    back_off: float = BACK_OFF,
    timeout: float = TIMEOUT,
) -> Path:
    """Downloads `url` to `destination` unless the right file is there already.

    Args:
        url: https, or http on this machine.
        sha256: the digest that the file must have, in hexadecimal.
        destination: its place; its folder is made.
        remedy: what a person can do where the network fails.
        attempts: how often to try what may pass: a time-out, a broken connection, a busy server.
        back_off: seconds before the second attempt, doubled each time.
        timeout: seconds without a byte.

    Returns:
        `destination`.

    Raises:
        UserError: the address may not be used or cannot be reached, the server refuses, or the content is not
            the
            expected one; nothing new then stands at `destination`.
    """
    if destination.is_file() and sha256_file(destination) == sha256:
        return destination
    if not _may_be_used(url):
        raise UserError(Fault(url, "must begin with https:// (or be on this machine)", url.partition(":")[0]))
    destination.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
    )
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            got = _download(url, file, attempts=attempts, back_off=back_off, timeout=timeout, remedy=remedy)
            file.flush()
            os.fsync(file.fileno())
        if got != sha256:
            rule = f"must have the SHA-256 {sha256}"
            raise UserError(Fault(url, rule, got, "check the address and the digest in params.yaml"))
        partial.chmod(0o644)
        partial.replace(destination)
    except OSError as error:
        raise UserError(Fault(str(destination), "must be writable", error.strerror or str(error))) from None
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _download(
    url: str, file: BinaryIO, *, attempts: int, back_off: float, timeout: float, remedy: str
) -> str:
    """Writes the whole body to `file`, trying again from its start; returns its SHA-256."""
    opener = _opener(url)
    for attempt in range(1, attempts + 1):
        file.seek(0)
        file.truncate()
        try:
            with contextlib.closing(opener.open(url, timeout=timeout)) as response:
                return _stream(response, file, url)
        except _NETWORK_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if attempt == attempts or not _may_pass(error):
                tries = f" after {attempt} attempts" if attempt > 1 else ""
                raise UserError(Fault(url, "must be reachable", f"{_reason(error)}{tries}", remedy)) from None
        time.sleep(back_off * 2 ** (attempt - 1))
    raise AssertionError("attempts must be at least 1")


def _stream(response: Any, file: BinaryIO, url: str) -> str:
    claimed = response.headers.get("Content-Length")
    total = int(claimed) if claimed and claimed.isdigit() else None
    digest, written = hashlib.sha256(), 0
    with tqdm(total=total, desc="download", unit="B", unit_scale=True, disable=None) as bar:
        while block := response.read(_BLOCK):
            written += len(block)
            if written > MAX_BYTES:
                raise UserError(Fault(url, f"must be at most {MAX_BYTES:,} bytes", "more"))
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if total is not None and written != total:
        raise http.client.IncompleteRead(b"", total - written)
    return digest.hexdigest()


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _may_be_used(url: str) -> bool:
    """Https anywhere, http on this machine only."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and _is_loopback(url))


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to https, or from this machine to itself."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        stays = _may_be_used(newurl) and (urlsplit(newurl).scheme == "https" or _is_loopback(req.full_url))
        if not stays:
            fp.close()
            raise UserError(Fault(req.full_url, "must redirect to https:// only", newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener with the system's certificates (or SSL_CERT_FILE's) and proxies, none of them for this
    machine.
    """
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    proxies = [urllib.request.ProxyHandler({})] if _is_loopback(url) else []
    return urllib.request.build_opener(_CarefulRedirects(), secure, *proxies)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _WORTH_RETRYING
    if isinstance(error, urllib.error.URLError):
        return not isinstance(error.reason, ssl.SSLCertVerificationError)
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, http.client.IncompleteRead):
        return f"{error.expected or 0:,} bytes too few"
    return str(error) or type(error).__name__
