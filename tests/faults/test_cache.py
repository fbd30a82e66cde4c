"""DVC restores its cache without verification; the stage that reads the files verifies them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import DVC, coma_gen, dvc, make_checkout
from subprocess_utils import attempt

pytestmark = pytest.mark.slow


def test_a_damaged_object_is_restored_by_dvc_and_refused_by_the_stage(
    tmp_path: Path, tally: Callable[[str, str, int], None]
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    dvc(checkout, "repro", "split")
    midi = next((checkout / "data" / "corpus").rglob("*.midi"))
    whole = midi.read_bytes()
    digest = hashlib.md5(whole, usedforsecurity=False).hexdigest()
    cached = checkout / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    cached.chmod(0o644)
    cached.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    cached.chmod(0o444)  # as DVC leaves it, which is how it knows that nobody touched it
    shutil.rmtree(checkout / "data" / "corpus")
    dvc(checkout, "repro", "download")
    assert midi.read_bytes() != whole, "DVC has noticed by itself: then this test can go"

    status, output = attempt(checkout, *DVC, "repro", "--force", "--single-item", "split")
    assert status != 0 and f"{midi.name}: must hold what manifest.json says" in output
    assert "Traceback" not in output and not (checkout / "data" / "split").exists()

    status, output = coma_gen(checkout, "doctor")
    assert status == 1 and "Traceback" not in output
    shown = cached.relative_to(checkout).as_posix()
    assert f"{shown} is damaged" in output and f"rm -f {shown}" in output and "rm -r data/corpus" in output

    cached.unlink()
    shutil.rmtree(checkout / "data" / "corpus")
    dvc(checkout, "repro", "split")
    assert midi.read_bytes() == whole and (checkout / "data" / "split").exists()
    tally(
        "a damaged object in DVC's cache", "refused by the stage that reads it; the doctor's words mend it", 1
    )
