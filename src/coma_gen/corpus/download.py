"""Downloads one file atomically and verifies its digest.

The file is streamed to a temporary name in the same folder, and renamed only after its size and SHA-256 were
verified. Transient failures (a timeout, a broken connection, a busy server, corrupted bytes) are retried from
the start. Only https is allowed, also after redirects; plain http is allowed for this machine only.

Certificates are the system's, or those in the file that SSL_CERT_FILE names.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import replace_durably, sha256_file

MAX_BYTES = 2**30
CA_VARIABLE = "SSL_CERT_FILE"
WITHOUT_NETWORK = "without a network, use synthetic music: .venv/bin/dvc exp run -S download.corpus=synthetic"
_BLOCK = 2**18
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_HTML_STARTS = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True)
class RetryPolicy:
    """Retries and timeouts of a download.

    Attributes:
        attempts: Maximum number of attempts.
        back_off: Seconds before the second attempt; doubled before each further one.
        timeout: Timeout in seconds to connect, and to wait for data.
        least_bytes: Minimum number of bytes per `timeout`; a slower server counts as stalled.
    """

    attempts: int = 4
    back_off: float = 1.0
    timeout: float = 30.0
    least_bytes: int = 2**14


RETRY_POLICY = RetryPolicy()


class _Response(NamedTuple):
    """Digest, size and first bytes of a response."""

    sha256: str
    size: int
    start: bytes


class _RefusedError(Exception):
    """Failure of an attempt, and whether it may be transient."""

    def __init__(self, reason: str, *, may_pass: bool, remedy: str = "") -> None:
        super().__init__(reason)
        self.may_pass = may_pass
        self.remedy = remedy


def fetch(
    url: str, sha256: str, destination: Path, *, remedy: str, retry: RetryPolicy = RETRY_POLICY
) -> Path:
    """Downloads `url` to `destination` unless the right file is there already.

    Args:
        url: Address: https, or http on this machine.
        sha256: Expected SHA-256 of the file, in hexadecimal.
        destination: Path to write; its folder is created.
        remedy: Remedy for the error where the network fails.
        retry: Retries and timeouts.

    Returns:
        `destination`.

    Raises:
        UserError: The address is not allowed or cannot be reached, the server refuses, the content does not
            have the expected digest, or the disk is full. `destination` is then unchanged.
    """
    if destination.is_file() and sha256_file(destination) == sha256:
        return destination
    if not _is_allowed(url):
        raise UserError(Fault(url, "must begin with https:// (or be on this machine)", url.partition(":")[0]))
    with _open_atomic(destination) as file:
        body = _download(url, file, sha256, retry=retry, remedy=remedy)
        if body.sha256 != sha256:
            page = " of a web page" if body.start.lstrip().lower().startswith(_HTML_STARTS) else ""
            got = f"{body.sha256}, {body.size:,} bytes{page}"
            todo = "check the address and the digest in params.yaml"
            raise UserError(Fault(url, f"must have the SHA-256 {sha256}", got, todo))
    return destination


@contextlib.contextmanager
def _open_atomic(destination: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file; renames it to `destination` if the block succeeds, else deletes it."""
    partial: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
        )
        partial = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        replace_durably(partial, destination)
    except OSError as error:
        raise UserError(Fault(str(destination), "must be writable", error.strerror or str(error))) from None
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _download(url: str, file: IO[bytes], sha256: str, *, retry: RetryPolicy, remedy: str) -> _Response:
    """Downloads the body to `file`, retrying from the start.

    A wrong digest is retried as well, because bytes may be corrupted in transit; the same wrong digest twice
    means that the server has another file.
    """
    opener = _build_opener(url)
    wrong: set[str] = set()
    for attempt in range(1, retry.attempts + 1):
        file.seek(0)
        file.truncate()
        try:
            body = _try_download(opener, url, file, retry)
            if body.sha256 == sha256 or body.sha256 in wrong or attempt == retry.attempts:
                return body
            wrong.add(body.sha256)
        except _RefusedError as refused:
            if attempt == retry.attempts or not refused.may_pass:
                got = f"{refused} after {attempt} attempts" if attempt > 1 else str(refused)
                raise UserError(Fault(url, "must be reachable", got, refused.remedy or remedy)) from None
        time.sleep(retry.back_off * 2 ** (attempt - 1))
    raise AssertionError("attempts must be at least 1")


def _try_download(
    opener: urllib.request.OpenerDirector, url: str, file: IO[bytes], retry: RetryPolicy
) -> _Response:
    """Attempts the download once."""
    with _convert_network_errors():
        response = opener.open(url, timeout=retry.timeout)
    with contextlib.closing(response):
        if response.status != http.client.OK:
            raise _RefusedError(f"HTTP {response.status} {response.reason}", may_pass=False)
        claimed = response.headers.get("Content-Length", "")
        with _convert_network_errors():
            total = int(claimed) if claimed.isdecimal() else None
        digest, size, start = hashlib.sha256(), 0, b""
        with tqdm(total=total, desc="download", unit="B", unit_scale=True, disable=None) as bar:
            for block in _iter_blocks(response, retry):
                size += len(block)
                if max(size, total or 0) > MAX_BYTES:
                    raise UserError(Fault(url, f"must be at most {MAX_BYTES:,} bytes", "more"))
                digest.update(block)
                start = start or block[:64]
                file.write(block)
                bar.update(len(block))
        if total is not None and size != total:
            raise _RefusedError(f"{total - size:,} bytes too few", may_pass=True)
        return _Response(digest.hexdigest(), size, start)


def _iter_blocks(response: Any, retry: RetryPolicy) -> Iterator[bytes]:
    """Yields blocks of the response; raises an error if the server is too slow."""
    since, received = time.monotonic(), 0
    while True:
        with _convert_network_errors():
            block: bytes = response.read1(_BLOCK)
        if not block:
            return
        yield block
        received += len(block)
        waited = time.monotonic() - since
        if waited > retry.timeout:
            if received < retry.least_bytes:
                raise _RefusedError(f"only {received:,} bytes in {waited:.0f} s", may_pass=True)
            since, received = time.monotonic(), 0


@contextlib.contextmanager
def _convert_network_errors() -> Iterator[None]:
    """Converts network exceptions to `_RefusedError` with a one-line reason."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = " ".join(f"HTTP {error.code} {error.reason}".split())
        raise _RefusedError(reason, may_pass=error.code in _TRANSIENT_STATUSES) from None
    except http.client.IncompleteRead as error:
        raise _RefusedError(f"{error.expected or 'some'} bytes too few", may_pass=True) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = f"if your network has certificates of its own, set {CA_VARIABLE} to their file"
            raise _RefusedError(reason, may_pass=False, remedy=remedy) from None
        raise _RefusedError(reason, may_pass=not isinstance(cause, ValueError)) from None


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _is_allowed(url: str) -> bool:
    """Whether the scheme is https, or http on this machine."""
    try:
        scheme = urlsplit(url).scheme
        return scheme == "https" or (scheme == "http" and _is_loopback(url))
    except ValueError:
        return False


class _SafeRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to https, or from this machine to itself; closes the connection otherwise."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (UserError, ValueError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        stays = _is_allowed(newurl) and (urlsplit(newurl).scheme == "https" or _is_loopback(req.full_url))
        if not stays:
            raise UserError(Fault(req.full_url, "must redirect to https:// only", newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _build_opener(url: str) -> urllib.request.OpenerDirector:
    """Builds an opener with the configured certificates and proxies, without a proxy for this machine.

    Raises:
        UserError: `CA_VARIABLE` does not name a file of certificates.
    """
    context = ssl.create_default_context()
    if named := os.environ.get(CA_VARIABLE):
        try:
            context.load_verify_locations(named)
        except (OSError, ValueError) as error:
            raise UserError(
                Fault(CA_VARIABLE, "must name a file of PEM certificates", f"{named} ({error})")
            ) from None
    proxies = [urllib.request.ProxyHandler({})] if _is_loopback(url) else []
    return urllib.request.build_opener(
        _SafeRedirectHandler(), urllib.request.HTTPSHandler(context=context), *proxies
    )
