"""Artifacts are read back as written, or rejected by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from coma_gen.core.artifact import MANIFEST, verify_artifact, write_manifest
from coma_gen.core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("b")
    write_manifest(tmp_path, kind="corpus", made_from={"source": "1" * 64}, settings={"bins": (1, 2)})
    return tmp_path


def test_opens_what_was_sealed(folder: Path) -> None:
    manifest = verify_artifact(folder, kind="corpus")
    assert manifest.made_from == {"source": "1" * 64}
    assert manifest.settings == {"bins": [1, 2]}
    assert list(manifest.files) == ["a.txt", "sub/b.txt"]
    assert (
        manifest.digest
        == write_manifest(
            folder, kind="corpus", made_from={"source": "1" * 64}, settings={"bins": [1, 2]}
        ).digest
    )


def test_every_kind_of_damage_is_reported_at_once(folder: Path) -> None:
    (folder / "a.txt").write_text("A")
    (folder / "sub" / "b.txt").unlink()
    (folder / "c.txt").write_text("c")
    with pytest.raises(UserError) as caught:
        verify_artifact(folder, kind="corpus")
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert all(name in text for name in ("a.txt", "b.txt", "c.txt"))


def test_a_folder_that_was_slipped_in_by_a_link_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "link").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match=r"link: is not named in"):
        verify_artifact(folder, kind="corpus")


def test_another_kind_no_manifest_and_another_format_are_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(UserError, match="must hold a model, got a corpus"):
        verify_artifact(folder, kind="model")
    with pytest.raises(UserError, match=MANIFEST):
        verify_artifact(tmp_path_factory.mktemp("none"), kind="corpus")
    (folder / MANIFEST).write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 2"):
        verify_artifact(folder, kind="corpus")


def test_digest_changes_with_content_and_with_origin(folder: Path) -> None:
    before = verify_artifact(folder, kind="corpus").digest
    other = write_manifest(
        folder, kind="corpus", made_from={"source": "2" * 64}, settings={"bins": [1, 2]}
    ).digest
    (folder / "a.txt").write_text("A")
    changed = write_manifest(
        folder, kind="corpus", made_from={"source": "1" * 64}, settings={"bins": [1, 2]}
    ).digest
    assert len({before, other, changed}) == 3
