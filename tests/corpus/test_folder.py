"""A person's own music, as it lies in a real folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coma_gen.corpus.folder import write_folder
from coma_gen.errors import UserError
from coma_gen.files import sha256_file


def test_any_depth_and_case_without_a_table(own_folder: Path, tmp_path: Path) -> None:
    music = write_folder(own_folder, tmp_path / "out")
    assert [(row.midi_filename, row.composer, row.title) for row in music.performances] == [
        ("Bach/Invention_1.mid", "Bach", "Invention 1"),
        ("Bach/deep/two.MIDI", "deep", "two"),
        ("Verdi - Liszt/ü x.mid", "Verdi - Liszt", "ü x"),
        ("top.mid", "unknown", "top"),
    ]
    assert {(row.duration, row.split, row.year) for row in music.performances} == {(2.0, "", "")}
    for row in music.performances:
        assert (tmp_path / "out" / row.midi_filename).read_bytes() == (
            own_folder / row.midi_filename
        ).read_bytes()
        assert row.sha256 == sha256_file(own_folder / row.midi_filename)
    assert (music.twins, music.not_in_table) == (0, [])


def test_twins_are_kept_once_and_counted(own_folder: Path, tmp_path: Path) -> None:
    shutil.copy(own_folder / "top.mid", own_folder / "a copy.mid")
    music = write_folder(own_folder, tmp_path / "out")
    assert music.twins == 1
    assert "a copy.mid" in [row.midi_filename for row in music.performances]
    assert not (tmp_path / "out" / "top.mid").exists()


@pytest.mark.parametrize("name", ["corpus.csv", "maestro-v3.0.0.csv"])
def test_a_table_says_what_the_files_are(own_folder: Path, tmp_path: Path, name: str) -> None:
    header = "canonical_composer,canonical_title,split,midi_filename,duration"
    rows = "Verdi / Liszt,Rigoletto,test,Verdi - Liszt/ü x.mid,9.5\nBach,Two,,Bach/deep/two.MIDI,2"
    (own_folder / name).write_text(f"{header}\n{rows}\n", encoding="utf-8")
    music = write_folder(own_folder, tmp_path / "out")
    assert [(row.composer, row.title, row.split, row.duration) for row in music.performances] == [
        ("Bach", "Two", "", 2.0),
        ("Verdi / Liszt", "Rigoletto", "test", 9.5),
    ]
    assert (music.twins, music.not_in_table) == (0, ["Bach/Invention_1.mid", "top.mid"])


def test_a_faulty_table_two_tables_and_a_wrong_digest_are_refused(own_folder: Path, tmp_path: Path) -> None:
    header = "canonical_composer,canonical_title,sha256,midi_filename,duration"
    table = own_folder / "corpus.csv"
    table.write_text(f"{header}\nBach,Two,,none.mid,2\n")
    with pytest.raises(UserError, match=r"line 2: its MIDI file must exist"):
        write_folder(own_folder, tmp_path / "out")
    table.write_text(f"{header}\nBach,Two,{'0' * 64},top.mid,2\n")
    with pytest.raises(UserError, match="must have the SHA-256 of the table"):
        write_folder(own_folder, tmp_path / "out")
    (own_folder / "maestro.csv").touch()
    with pytest.raises(UserError, match=r"one table at most .*got corpus\.csv, maestro\.csv"):
        write_folder(own_folder, tmp_path / "out")


def test_nothing_to_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be a folder.*Put \.mid"):
        write_folder(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"must hold a MIDI file \(\.mid"):
        write_folder(tmp_path / "empty", tmp_path / "out")


def test_links_are_followed_inside_only(
    own_folder: Path, tmp_path: Path, midi: Callable[[int], bytes]
) -> None:
    (tmp_path / "secret.mid").write_bytes(midi(99))
    (own_folder / "inside.mid").symlink_to(own_folder / "top.mid")
    (own_folder / "linked").symlink_to(own_folder / "Bach")
    assert write_folder(own_folder, tmp_path / "out").twins == 1
    (own_folder / "outside.mid").symlink_to(tmp_path / "secret.mid")
    with pytest.raises(UserError, match=r"outside\.mid: must not be a link that leaves the folder"):
        write_folder(own_folder, tmp_path / "again")


def test_names_that_no_table_can_hold_are_refused_together(own_folder: Path, tmp_path: Path) -> None:
    shutil.copy(own_folder / "top.mid", own_folder / "a\nb.mid")
    shutil.copy(own_folder / "top.mid", own_folder / "a\\b.mid")
    with pytest.raises(UserError) as caught:
        write_folder(own_folder, tmp_path / "out")
    assert len(caught.value.faults) == 2


def test_what_cannot_be_read_is_left_for_the_split_to_count(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "bad.mid").write_bytes(b"no music")
    (own_folder / ".hidden.mid").write_bytes(b"not looked at")
    music = write_folder(own_folder, tmp_path / "out")
    assert {row.midi_filename: row.duration for row in music.performances}["bad.mid"] == 0.0
    assert len(music.performances) == 5
