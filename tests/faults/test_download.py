"""Downloads from a server that fails in every way: afterwards the right file exists, or none."""

from __future__ import annotations

import datetime
import errno
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus import download as fetching
from coma_gen.corpus.download import CA_VARIABLE, RetryPolicy, fetch
from faults.broken_disk import broken_disk, full_at, is_killed
from faults.broken_server import Answer, BrokenServer, drips, head, resets, sends, stalls

Tally = Callable[[str, str, int], None]
BODY = bytes(range(256)) * 300
WHOLE = head(len(BODY)) + BODY
GOOD = sends(WHOLE)
HALF = BODY[: len(BODY) // 2]
FLIPPED = BODY[:1000] + bytes([BODY[1000] ^ 1]) + BODY[1001:]
PAGE = b"<!DOCTYPE html><title>Log in to the wireless network</title>"
RETRY_POLICY = RetryPolicy(attempts=3, back_off=0.0, timeout=30.0)
HASTE = RetryPolicy(attempts=6, back_off=0.0, timeout=0.25)
"""For servers that hang: where this machine is so busy that a good answer takes longer, it is asked again."""


def redirects(*targets: str, status: str = "302 Found") -> list[Answer]:
    return [sends(head(0, status=status, Location=target)) for target in targets]


def chunked(*parts: bytes, end: bool = True) -> Answer:
    framed = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return sends(head(None, Transfer_Encoding="chunked"), framed, b"0\r\n\r\n" if end else b"")


class Way(NamedTuple):
    """One way in which a server fails, the last answer being for ever.

    Attributes:
        answers: what it gives, a connection each.
        words: of the fault; "" where the file is had in the end.
        asked: how often it is asked; None to leave that open.
        retry: how long it is waited for.
    """

    answers: list[Answer]
    words: str = ""
    asked: int | None = None
    retry: RetryPolicy = RETRY_POLICY


WAYS = {
    "nothing wrong": Way([GOOD], asked=1),
    "short, then good": Way([sends(head(len(BODY)), HALF), GOOD], asked=2),
    "always short": Way([sends(head(len(BODY)), HALF)], "bytes too few after 3 attempts", 3),
    "long": Way([sends(WHOLE, b"and more")], asked=1),
    "claims too little": Way([sends(head(len(HALF)), BODY)], "must have the SHA-256", 2),
    "claims nonsense": Way([sends(head(None, Content_Length="-5"), BODY)], asked=1),
    "claims more digits than a number may have": Way(
        [sends(head(None, Content_Length="9" * 5000), BODY)], "must be reachable", 1
    ),
    "says no length": Way([sends(head(None), BODY)], asked=1),
    "no length, cut off once": Way([sends(head(None), HALF), GOOD], asked=2),
    "no length, always cut off": Way([sends(head(None), HALF)], "must have the SHA-256", 2),
    "reset before an answer": Way([resets(), resets(), GOOD], asked=3),
    "reset midway": Way([resets(head(len(BODY)), HALF), GOOD], asked=2),
    "always reset midway": Way([resets(head(len(BODY)), HALF)], "after 3 attempts", 3),
    "closed without a word": Way([sends(), GOOD], asked=2),
    "stalled before an answer": Way([stalls(), GOOD], retry=HASTE),
    "stalled within the header": Way([stalls(head(len(BODY))[:30]), GOOD], retry=HASTE),
    "stalled midway": Way([stalls(head(len(BODY)), HALF), GOOD], retry=HASTE),
    "always stalled": Way([stalls(head(len(BODY)), HALF)], "timed out after 6 attempts", 6, HASTE),
    "dripping without end": Way([drips(head(len(BODY)), BODY, every=0.02)], "after 6 attempts", 6, HASTE),
    "slow, but coming": Way([drips(head(len(BODY)) + BODY[:-4], BODY[-4:], every=0.1)], asked=1),
    "a web page with 200": Way([sends(head(len(PAGE)), PAGE)], "of a web page", 2),
    "404": Way([sends(head(0, status="404 Not Found"))], "HTTP 404 Not Found. Use another", 1),
    "403": Way([sends(head(0, status="403 Forbidden"))], "HTTP 403", 1),
    "503, then good": Way([sends(head(0, status="503 Busy")), GOOD], asked=2),
    "always 500": Way([sends(head(0, status="500 Oh"))], "HTTP 500 Oh after 3 attempts", 3),
    "429, then good": Way([sends(head(0, status="429 Slower")), GOOD], asked=2),
    "204 without content": Way([sends(head(None, status="204 No Content"))], "HTTP 204", 1),
    "206 with a part": Way([sends(head(len(HALF), status="206 Partial Content"), HALF)], "HTTP 206", 1),
    "a redirect to itself": Way(redirects("/a.zip"), "HTTP 302", 5),
    "a redirect without an address": Way([sends(head(0, status="302 Found"))], "HTTP 302", 1),
    "a redirect to nonsense": Way(redirects("http://[::1"), "must be reachable", 1),
    "a redirect to plain http elsewhere": Way(redirects("http://example.org/a"), "redirect to https", 1),
    "a redirect to a file": Way(redirects("file:///etc/passwd"), "is not allowed", 1),
    "a redirect to ftp": Way(redirects("ftp://127.0.0.1/a"), "redirect to https", 1),
    "a permanent redirect away": Way(
        redirects("http://10.0.0.1/a", status="308 Moved"), "redirect to https", 1
    ),
    "a flipped bit, then good": Way([sends(head(len(BODY)), FLIPPED), GOOD], asked=2),
    "always the same flipped bit": Way([sends(head(len(BODY)), FLIPPED)], "must have the SHA-256", 2),
    "chunked": Way([chunked(HALF, BODY[len(HALF) :])], asked=1),
    "chunked, cut off, then good": Way([chunked(HALF, end=False), GOOD], asked=2),
    "chunked, with nonsense for a length": Way(
        [sends(head(None, Transfer_Encoding="chunked"), b"xyz\r\n", BODY)], "after 3 attempts", 3
    ),
    "not HTTP": Way([sends(b"SSH-2.0-OpenSSH_9.6\r\n")], "after 3 attempts", 3),
    "a status that is no number": Way([sends(b"HTTP/1.1 yes OK\r\n\r\n")], "after 3 attempts", 3),
    "a line without end": Way([sends(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 100_000)], "after 3 attempts", 3),
    "a thousand headers": Way([sends(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000)], "after 3 attempts", 3),
    "unsolicited compression": Way(
        [sends(head(20, Content_Encoding="gzip"), b"\x1f\x8b" + bytes(18))], "must have the SHA-256", 2
    ),
}


def get(server: BrokenServer, folder: Path, *, retry: RetryPolicy = RETRY_POLICY) -> Path:
    path = folder / "cache" / "a.zip"
    remedy = "use another source"
    return fetch(f"{server.address}/a.zip", sha256_bytes(BODY), path, remedy=remedy, retry=retry)


def holds_nothing_else(folder: Path) -> bool:
    """Whether the cache holds the right file or none, and no part of one."""
    found = {path.name: path.read_bytes() for path in (folder / "cache").iterdir()}
    return found in ({}, {"a.zip": BODY})


@pytest.mark.parametrize("name", WAYS)
def test_however_the_server_fails(name: str, tmp_path: Path, tally: Tally) -> None:
    way = WAYS[name]
    with BrokenServer(way.answers) as server:
        if way.words:
            with pytest.raises(UserError) as caught:
                get(server, tmp_path, retry=way.retry)
            assert way.words in str(caught.value)
            assert len(str(caught.value).splitlines()) == len(caught.value.faults) == 1
            assert not (tmp_path / "cache" / "a.zip").exists()
        else:
            assert get(server, tmp_path, retry=way.retry).read_bytes() == BODY
        assert way.asked is None or len(server.asked) == way.asked
    assert holds_nothing_else(tmp_path)
    tally("a server that fails in this many ways", "the right file under the name, or none", 1)


@pytest.mark.parametrize("claimed", [len(BODY), None], ids=["claimed", "not claimed"])
def test_more_bytes_than_the_limit_are_refused(
    claimed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", len(BODY) - 1)
    with BrokenServer([sends(head(claimed), BODY)]) as server:
        with pytest.raises(UserError, match="must be at most 76,799 bytes, got more"):
            get(server, tmp_path)
        assert len(server.asked) == 1
    assert holds_nothing_else(tmp_path)
    monkeypatch.setattr(fetching, "MAX_BYTES", len(BODY))
    with BrokenServer([GOOD]) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    tally("a server that fails in this many ways", "the right file under the name, or none", 1)


def test_a_long_row_of_redirects_ends(tmp_path: Path, tally: Tally) -> None:
    with BrokenServer(redirects(*(f"/{number}" for number in range(50)))) as server:
        with pytest.raises(UserError, match="must be reachable, got HTTP 302"):
            get(server, tmp_path)
        assert len(server.asked) <= 12
    tally("a server that fails in this many ways", "the right file under the name, or none", 1)


def test_each_wait_is_twice_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    retry = RetryPolicy(attempts=5, back_off=0.5, timeout=30.0)
    with BrokenServer([resets()]) as server, pytest.raises(UserError, match="after 5 attempts"):
        get(server, tmp_path, retry=retry)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    tally("a server that never answers", "tried so often, each wait twice the last", 5)


def test_the_disk_fails_at_any_call(tmp_path: Path, tally: Tally) -> None:
    number = 0
    with BrokenServer([GOOD]) as server:
        while True:
            number += 1
            folder = tmp_path / str(number)
            try:
                with broken_disk(full_at(number, (errno.ENOSPC, errno.EROFS)[number % 2])) as count:
                    get(server, folder)
            except UserError as error:
                assert "must be writable" in str(error)
                assert not (folder / "cache").exists() or holds_nothing_else(folder)
            else:
                assert count[0] < number
                break
    tally("disk full or read-only at each call of a download", "the right file or none", number - 1)


def test_kill_9_at_any_call(tmp_path: Path, tally: Tally) -> None:
    number = 1
    path = tmp_path / "cache" / "a.zip"
    with BrokenServer([GOOD]) as server:
        while is_killed(lambda: get(server, tmp_path), at=number):
            assert not path.exists() or path.read_bytes() == BODY
            path.unlink(missing_ok=True)
            number += 1
    assert path.read_bytes() == BODY
    tally("kill -9 at each call of a download", "the right file or none", number - 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate authority of somebody's own, and a server's key with its certificate for localhost."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(text: str) -> object:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in ("authority", "server")}

    def signed(who: str, *extensions: object) -> bytes:
        builder = x509.CertificateBuilder(issuer_name=named("authority"), subject_name=named(who))
        builder = builder.public_key(keys[who].public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(keys["authority"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    subject = x509.SubjectKeyIdentifier.from_public_key(keys["authority"].public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["authority"].public_key())
    use = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    folder = tmp_path_factory.mktemp("authority")
    root, server = folder / "root.pem", folder / "server.pem"
    root.write_bytes(signed("authority", x509.BasicConstraints(ca=True, path_length=None), use, subject))
    key = keys["server"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server.write_bytes(
        key + signed("server", x509.BasicConstraints(ca=False, path_length=None), names, issuer)
    )
    return root, server


class TestCertificates:
    def test_those_of_ones_own_are_asked_for_and_used(
        self, authority: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        root, certificate = authority
        monkeypatch.delenv(CA_VARIABLE, raising=False)
        with BrokenServer([GOOD], certificate=certificate) as server:
            with pytest.raises(UserError, match=f"certificate verify failed.*set {CA_VARIABLE} to"):
                get(server, tmp_path)
            monkeypatch.setenv(CA_VARIABLE, str(root))
            assert get(server, tmp_path).read_bytes() == BODY
            assert server.asked == ["/a.zip"], "nothing is asked for before the certificate is proven"
        tally("a certificate that nobody vouches for", "refused; used once its authority is named", 2)

    @pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
    def test_a_file_without_certificates_is_refused(
        self, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv(CA_VARIABLE, str(path))
        with BrokenServer([GOOD]) as server, pytest.raises(UserError, match=f"{CA_VARIABLE}: must name"):
            get(server, tmp_path)
        tally("SSL_CERT_FILE that names no certificates", "refused by name", 1)

    def test_a_redirect_from_https_to_http_is_refused_also_on_this_machine(
        self, authority: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        root, certificate = authority
        monkeypatch.setenv(CA_VARIABLE, str(root))
        with BrokenServer([GOOD]) as plain:
            answers = redirects("http://example.org/a.zip")
            refusal = pytest.raises(UserError, match="must redirect to https")
            with BrokenServer(answers, certificate=certificate) as server, refusal:
                get(server, tmp_path)
            assert plain.asked == []
        tally("a redirect from https to http", "refused", 1)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "a.zip", "", "https//x", "http://[::1",
     "HTTP://EXAMPLE.org/a", "http://127.0.0.1.example.org/a", "http://localhost@example.org/a", "data:,x"],
)  # fmt: skip
def test_an_address_that_may_not_be_used_is_never_asked(url: str, tmp_path: Path, tally: Tally) -> None:
    with pytest.raises(UserError, match="must begin with https://"):
        fetch(url, "0" * 64, tmp_path / "a.zip", remedy="", retry=RETRY_POLICY)
    tally("an address that is not https", "refused before anything is sent", 1)


@pytest.mark.parametrize(
    "url",
    ["https://", "https:///a", "https://\x00/", "https://" + "a" * 70 + ".org/", "https://localhost:99999/"],
)
def test_an_address_that_leads_nowhere_is_one_line(url: str, tmp_path: Path, tally: Tally) -> None:
    with pytest.raises(UserError) as caught:
        fetch(url, "0" * 64, tmp_path / "a.zip", remedy="", retry=RETRY_POLICY)
    assert len(str(caught.value).splitlines()) == 1
    tally("an https address that leads nowhere", "one clear line", 1)
