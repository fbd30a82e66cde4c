"""MAESTRO v3.0.0 (Hawthorne et al. 2019): all 1,276 performances.

They come in the official archive, or in any zip or folder that holds the same files: the digest of a manifest
of every file decides, not the digest of the packaging. MAESTRO is licensed CC BY-NC-SA 4.0: it is fetched,
never redistributed here.
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
"""The environment variable that may name a zip or folder to read instead of downloading."""

MANIFEST_SHA256 = "9f08912bc1289b06b2b98ff92c7c809020165e5fbc7be8bf3d8f8a254bc1ccc2"
"""SHA-256 of a line '<sha256>  ./<path>' for each of the 1,280 files of MAESTRO v3.0.0, sorted by path."""

ARCHIVE = "maestro-v3.0.0-midi.zip"
TABLE = "maestro-v3.0.0.csv"
_FILE = re.compile(r"(?:.*/)?(\d{4}/[^/]+\.midi|maestro-v3\.0\.0\.(?:csv|json)|LICENSE|README)")


def write_maestro(folder: Path, *, url: str, sha256: str, cache: Path) -> list[Performance]:
    """Writes all 1,276 performances below `folder` and returns their rows.

    Args:
        folder: where to write.
        url: of the official archive; not used when `COMA_MAESTRO_ARCHIVE` names a zip or folder.
        sha256: of that archive.
        cache: where the archive is kept; when it is there, no network is used.

    Raises:
        UserError: the archive cannot be had, or does not hold MAESTRO v3.0.0 file for file.
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
        for name, content in _files_of(source):
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
    """The digest of a manifest that names each file with its SHA-256."""
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


def _files_of(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that may belong to MAESTRO, in a zip or a folder."""
    if source.is_file():
        yield from read_zip(source)
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if _FILE.fullmatch(name) and path.is_file():
                yield name, path.read_bytes()
    else:
        raise UserError(Fault(ARCHIVE_VARIABLE, "must name a zip or folder of MAESTRO v3.0.0", str(source)))
