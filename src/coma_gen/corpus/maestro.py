"""The source "maestro": all 1,276 performances of MAESTRO v3.0.0 (Hawthorne et al. 2019).

They are read from the official archive, or from any zip or folder with the same files: it is verified by the
digest of a manifest of all files, not of the archive. MAESTRO is licensed CC BY-NC-SA 4.0: it is downloaded,
not redistributed here.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.archive import read_zip
from coma_gen.corpus.download import WITHOUT_NETWORK, fetch
from coma_gen.corpus.table import Performance, read_table

ARCHIVE_VARIABLE = "COMA_MAESTRO_ARCHIVE"
"""Environment variable with the path of a zip or folder to read instead of downloading."""

MANIFEST_SHA256 = "9f08912bc1289b06b2b98ff92c7c809020165e5fbc7be8bf3d8f8a254bc1ccc2"
"""SHA-256 of the lines '<sha256>  ./<path>' of the 1,280 files of MAESTRO v3.0.0, sorted by path."""

ARCHIVE = "maestro-v3.0.0-midi.zip"
TABLE = "maestro-v3.0.0.csv"
_FILE = re.compile(r"(?:.*/)?(\d{4}/[^/]+\.midi|maestro-v3\.0\.0\.(?:csv|json)|LICENSE|README)")


def write_maestro(folder: Path, *, url: str, sha256: str, cache: Path) -> list[Performance]:
    """Writes all 1,276 performances to `folder` and returns their rows.

    Args:
        folder: Folder to write.
        url: Address of the official archive; not used if `COMA_MAESTRO_ARCHIVE` is set.
        sha256: SHA-256 of that archive.
        cache: Folder in which the archive is cached; a cached archive needs no network.

    Raises:
        UserError: The archive is unavailable, or does not contain exactly the files of MAESTRO v3.0.0.
    """
    named = os.environ.get(ARCHIVE_VARIABLE)
    if named:
        source = Path(named).expanduser()
    else:
        remedy = f"set {ARCHIVE_VARIABLE} to a zip or folder of MAESTRO v3.0.0, or, {WITHOUT_NETWORK}"
        source = fetch(url, sha256, cache / ARCHIVE, remedy=remedy)
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix=".table.", dir=folder) as aside:
        table = Path(aside) / TABLE
        for name, content in _iter_files(source):
            match = _FILE.fullmatch(name)
            if match is None:
                continue
            path = match[1]
            if path in digests:
                raise UserError(Fault(str(source), "must hold MAESTRO v3.0.0 once", f"{path} twice"))
            digests[path] = sha256_bytes(content)
            if path.endswith(".midi"):
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(content)
            elif path == TABLE:
                table.write_bytes(content)
        _check_manifest(digests, source)
        return read_table(table, folder=folder)


def manifest_digest(digests: dict[str, str]) -> str:
    """Computes the digest of a manifest from path -> SHA-256 of all files."""
    ordered = sorted(digests, key=lambda path: path.encode("utf-8"))
    return sha256_bytes("".join(f"{digests[path]}  ./{path}\n" for path in ordered).encode("utf-8"))


def _check_manifest(digests: dict[str, str], source: Path) -> None:
    got = manifest_digest(digests)
    if got == MANIFEST_SHA256:
        return
    midi = sum(path.endswith(".midi") for path in digests)
    missing = [name for name in (TABLE, "maestro-v3.0.0.json", "LICENSE", "README") if name not in digests]
    found = f"{midi:,} performances" + (f", no {', '.join(missing)}" if missing else "")
    rule = "must hold MAESTRO v3.0.0 file for file: 1,276 performances, two tables, LICENSE and README"
    raise UserError(Fault(str(source), rule, f"{found}, manifest digest {got[:12]}..."))


def _iter_files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of every file in a zip or folder that may belong to MAESTRO."""
    if source.is_file():
        yield from read_zip(source)
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if _FILE.fullmatch(name) and path.is_file():
                yield name, path.read_bytes()
    else:
        raise UserError(Fault(ARCHIVE_VARIABLE, "must name a zip or folder of MAESTRO v3.0.0", str(source)))
