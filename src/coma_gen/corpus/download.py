"""One file from the network, whole and with the right digest, or none.

The file is streamed to a temporary name beside its place, its size and SHA-256 are compared, and only then it
takes its name: what stands under the final name has been proven, and nothing else was ever opened. What may
pass (a time-out, a broken connection, a busy server, bytes that were changed on their way) is tried again
from the start. Only https, at every redirect too; plain http is for this machine itself: tests and copies.

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
WITHOUT_NETWORK = "without a network, use made-up music: .venv/bin/dvc exp run -S download.corpus=synthetic"
_BLOCK = 2**18
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)
_OF_A_PAGE = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server, and how often.

    Attributes:
        attempts: how often to try what may pass.
        back_off: seconds before the second attempt; doubled before each further one.
        timeout: seconds to be connected in, and to wait for a byte.
        least_bytes: that must come within `timeout`, so that a server which only drips is one that stalls.
    """

    attempts: int = 4
    back_off: float = 1.0
    timeout: float = 30.0
    least_bytes: int = 2**14


PATIENCE = RetryPolicy()


class _Body(NamedTuple):
    """What came: its digest, its size, and how it begins."""

    sha256: str
    size: int
    start: bytes


class _RefusedError(Exception):
    """Why an attempt came to nothing, and whether another may come to more."""

    def __init__(self, reason: str, *, may_pass: bool, remedy: str = "") -> None:
        super().__init__(reason)
        self.may_pass = may_pass
        self.remedy = remedy


def fetch(url: str, sha256: str, destination: Path, *, remedy: str, patience: RetryPolicy = PATIENCE) -> Path:
    """Downloads `url` to `destination` unless the right file is there already.

    Args:
        url: https, or http on this machine.
        sha256: the digest that the file must have, in hexadecimal.
        destination: its path; its folder is made.
        remedy: what a person can do where the network fails.
        patience: how long to wait, and how often to try.

    Returns:
        `destination`.

    Raises:
        UserError: the address may not be used or cannot be reached, the server refuses, the content is not
            the expected one, or there is no room for it; nothing new then stands at `destination`.
    """
    if destination.is_file() and sha256_file(destination) == sha256:
        return destination
    if not _may_be_used(url):
        raise UserError(Fault(url, "must begin with https:// (or be on this machine)", url.partition(":")[0]))
    with _written_beside(destination) as file:
        body = _download(url, file, sha256, patience=patience, remedy=remedy)
        if body.sha256 != sha256:
            page = " of a web page" if body.start.lstrip().lower().startswith(_OF_A_PAGE) else ""
            got = f"{body.sha256}, {body.size:,} bytes{page}"
            todo = "check the address and the digest in params.yaml"
            raise UserError(Fault(url, f"must have the SHA-256 {sha256}", got, todo))
    return destination


@contextlib.contextmanager
def _written_beside(destination: Path) -> Iterator[IO[bytes]]:
    """A temporary file that takes the name `destination` when the block ends well, and is gone otherwise."""
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


def _download(url: str, file: IO[bytes], sha256: str, *, patience: RetryPolicy, remedy: str) -> _Body:
    """Writes the whole body to `file`, trying again from its start.

    A wrong digest is tried again too, as bytes may be lost or changed on their way; but the same wrong one
    twice is what the server has.
    """
    opener = _opener(url)
    wrong: set[str] = set()
    for attempt in range(1, patience.attempts + 1):
        file.seek(0)
        file.truncate()
        try:
            body = _attempt(opener, url, file, patience)
            if body.sha256 == sha256 or body.sha256 in wrong or attempt == patience.attempts:
                return body
            wrong.add(body.sha256)
        except _RefusedError as refused:
            if attempt == patience.attempts or not refused.may_pass:
                got = f"{refused} after {attempt} attempts" if attempt > 1 else str(refused)
                raise UserError(Fault(url, "must be reachable", got, refused.remedy or remedy)) from None
        time.sleep(patience.back_off * 2 ** (attempt - 1))
    raise AssertionError("attempts must be at least 1")


def _attempt(
    opener: urllib.request.OpenerDirector, url: str, file: IO[bytes], patience: RetryPolicy
) -> _Body:
    """One try, from the first byte to the last."""
    with _network_faults():
        response = opener.open(url, timeout=patience.timeout)
    with contextlib.closing(response):
        if response.status != http.client.OK:
            raise _RefusedError(f"HTTP {response.status} {response.reason}", may_pass=False)
        claimed = response.headers.get("Content-Length", "")
        with _network_faults():
            total = int(claimed) if claimed.isdecimal() else None
        digest, size, start = hashlib.sha256(), 0, b""
        with tqdm(total=total, desc="download", unit="B", unit_scale=True, disable=None) as bar:
            for block in _blocks(response, patience):
                size += len(block)
                if max(size, total or 0) > MAX_BYTES:
                    raise UserError(Fault(url, f"must be at most {MAX_BYTES:,} bytes", "more"))
                digest.update(block)
                start = start or block[:64]
                file.write(block)
                bar.update(len(block))
        if total is not None and size != total:
            raise _RefusedError(f"{total - size:,} bytes too few", may_pass=True)
        return _Body(digest.hexdigest(), size, start)


def _blocks(response: Any, patience: RetryPolicy) -> Iterator[bytes]:
    """What comes, as it comes; refused when it comes too slowly to be waited for."""
    since, come = time.monotonic(), 0
    while True:
        with _network_faults():
            block: bytes = response.read1(_BLOCK)
        if not block:
            return
        yield block
        come += len(block)
        waited = time.monotonic() - since
        if waited > patience.timeout:
            if come < patience.least_bytes:
                raise _RefusedError(f"only {come:,} bytes in {waited:.0f} s", may_pass=True)
            since, come = time.monotonic(), 0


@contextlib.contextmanager
def _network_faults() -> Iterator[None]:
    """Whatever goes wrong on the way to a server or back is a `_RefusedError` with its reason in one line."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = " ".join(f"HTTP {error.code} {error.reason}".split())
        raise _RefusedError(reason, may_pass=error.code in _WORTH_RETRYING) from None
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


def _may_be_used(url: str) -> bool:
    """Https anywhere, http on this machine only."""
    try:
        scheme = urlsplit(url).scheme
        return scheme == "https" or (scheme == "http" and _is_loopback(url))
    except ValueError:
        return False


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to https, or from this machine to itself; else leaves no connection open."""

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
        stays = _may_be_used(newurl) and (urlsplit(newurl).scheme == "https" or _is_loopback(req.full_url))
        if not stays:
            raise UserError(Fault(req.full_url, "must redirect to https:// only", newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener with the certificates and proxies that are set, no proxy for this machine.

    Raises:
        UserError: when `CA_VARIABLE` names no file of certificates.
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
        _CarefulRedirects(), urllib.request.HTTPSHandler(context=context), *proxies
    )
