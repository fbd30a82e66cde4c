"""A user's own MIDI files, as found in real folders."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from coma_gen.config.load import load_params
from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_file
from coma_gen.corpus.filters import keep_composers
from coma_gen.corpus.folder import write_folder
from coma_gen.corpus.split_methods import assign_splits
from coma_gen.corpus.table import Performance

ROOT = Path(__file__).resolve().parents[2]
HEADER = "canonical_composer,canonical_title,split,midi_filename,duration"


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


def test_twins_are_copied_once_and_counted(own_folder: Path, tmp_path: Path) -> None:
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


def refusal(own_folder: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        write_folder(own_folder, tmp_path / "again")
    return str(caught.value)


def test_what_is_no_file_is_refused_by_name_not_passed_over(
    own_folder: Path, tmp_path: Path, midi: Callable[[int], bytes]
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "more.mid").write_bytes(midi(7))
    (own_folder / "Bach" / "linked").symlink_to(other)
    (own_folder / "broken.mid").symlink_to(own_folder / "none.mid")
    os.mkfifo(own_folder / "pipe.mid")
    lines = refusal(own_folder, tmp_path).splitlines()
    assert len(lines) == 3
    assert f"{own_folder}/Bach/linked: must not be a link that leaves the folder, got {other}" in lines[0]
    assert "Copy the folder, or name it itself as download.path" in lines[0]
    assert "broken.mid: must be a file, got a link to nothing" in lines[1]
    assert "pipe.mid: must be a file, got a pipe or a device" in lines[2]


def test_folders_that_are_linked_inside_are_there_already(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "latest").symlink_to("Bach")
    (own_folder / "Bach" / "round").symlink_to("..")
    assert len(write_folder(own_folder, tmp_path / "out").performances) == 4


def test_other_endings_of_midi_files_count(
    own_folder: Path, tmp_path: Path, midi: Callable[[int], bytes]
) -> None:
    for number, name in enumerate(("song.kar", "a.SMF", "b.rmi"), start=10):
        (own_folder / name).write_bytes(midi(number))
    music = write_folder(own_folder, tmp_path / "out")
    assert {"song.kar", "a.SMF", "b.rmi"} < {row.midi_filename for row in music.performances}
    assert all(row.duration == 2.0 for row in music.performances)


@pytest.mark.parametrize("split", [" split", "Split", "SPLIT ", "\u00a0split", "\u200bsplit"])
def test_a_column_of_another_case_or_with_spaces_is_read(
    own_folder: Path, tmp_path: Path, split: str
) -> None:
    header = HEADER.replace("split", split).replace("midi_filename", "MIDI_Filename ")
    (own_folder / "corpus.csv").write_text(f"{header}\nBach,Two,test,top.mid,2\n", encoding="utf-8")
    (row,) = write_folder(own_folder, tmp_path / "out").performances
    assert row.split == "test"


@pytest.mark.parametrize(("column", "near"), [("splits", "split"), ("Splt", "split"), ("sha-256", "sha256")])
def test_a_column_that_is_nearly_one_of_ours_is_refused(
    own_folder: Path, tmp_path: Path, column: str, near: str
) -> None:
    header = f"canonical_composer,canonical_title,midi_filename,duration,{column}"
    (own_folder / "corpus.csv").write_text(f"{header}\nBach,Two,top.mid,2,\n")
    assert f"nearly one of ours, got {column}. Rename it to '{near}'" in refusal(own_folder, tmp_path)


def test_further_columns_are_not_ours(own_folder: Path, tmp_path: Path) -> None:
    header = f"{HEADER},key,tempo,notes_of_the_editor,opus"
    (own_folder / "corpus.csv").write_text(f"{header}\nBach,Two,test,top.mid,2,C,90,,1\n")
    assert len(write_folder(own_folder, tmp_path / "out").performances) == 1


class TestWhereTheTableLies:
    ROW = f"{HEADER}\nBach,Two,test,2004/a.midi,2\n"

    @pytest.fixture
    def unpacked(self, tmp_path: Path, midi: Callable[[int], bytes]) -> Path:
        """MAESTRO's shape, as its archive unpacks into a folder."""
        top = tmp_path / "own" / "maestro-v3.0.0"
        (top / "2004").mkdir(parents=True)
        for number, name in enumerate("ab"):
            (top / "2004" / f"{name}.midi").write_bytes(midi(number))
        (top / "maestro-v3.0.0.csv").write_text(self.ROW)
        return tmp_path / "own"

    @pytest.mark.parametrize("name", ["maestro-v3.0.0.csv", "Maestro.CSV", "Corpus.csv"])
    def test_one_level_deeper_it_is_read_where_it_lies(
        self, unpacked: Path, tmp_path: Path, name: str
    ) -> None:
        top = unpacked / "maestro-v3.0.0"
        (top / "maestro-v3.0.0.csv").rename(top / name)
        music = write_folder(unpacked, tmp_path / "out")
        assert [(row.midi_filename, row.split) for row in music.performances] == [("2004/a.midi", "test")]
        assert music.not_in_table == ["2004/b.midi"]
        assert (tmp_path / "out" / "2004" / "a.midi").is_file()

    def test_beside_other_music_or_another_table_it_is_refused(
        self, unpacked: Path, tmp_path: Path, midi: Callable[[int], bytes]
    ) -> None:
        (unpacked / "mine.mid").write_bytes(midi(5))
        text = refusal(unpacked, tmp_path)
        assert "must have a table of the music at its top" in text
        assert "got maestro-v3.0.0/maestro-v3.0.0.csv. Name the folder that holds both" in text
        (unpacked / "mine.mid").unlink()
        (unpacked / "maestro-v3.0.0" / "2004" / "corpus.csv").write_text(self.ROW)
        assert "maestro-v3.0.0/2004/corpus.csv" in refusal(unpacked, tmp_path)

    @pytest.mark.parametrize("name", ["my music.csv", "metadata.CSV"])
    def test_under_another_name_it_is_refused(self, unpacked: Path, tmp_path: Path, name: str) -> None:
        top = unpacked / "maestro-v3.0.0"
        (top / "maestro-v3.0.0.csv").rename(top / name)
        assert f"got {name}. Rename it to corpus.csv" in refusal(top, tmp_path)

    def test_a_csv_of_something_else_is_no_table(self, own_folder: Path, tmp_path: Path) -> None:
        (own_folder / "prices.csv").write_text("name,price\nBach,1\n")
        assert len(write_folder(own_folder, tmp_path / "out").performances) == 4

    def test_one_that_is_a_pipe_is_not_waited_for(self, own_folder: Path, tmp_path: Path) -> None:
        os.mkfifo(own_folder / "corpus.csv")
        assert "corpus.csv: must be a file, got a pipe or a device" in refusal(own_folder, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "全角\u3000空白.mid",
        "a\u00a0b.mid",
        "\u0928\u200d\u092e.mid",
        "zero\u200bwidth.mid",
        "private \ue000.mid",
        "x" * 251 + ".mid",
    ],
)
def test_names_of_all_the_world_are_copied(
    own_folder: Path, tmp_path: Path, name: str, midi: Callable[[int], bytes]
) -> None:
    (own_folder / name).write_bytes(midi(9))
    music = write_folder(own_folder, tmp_path / "out")
    assert name in {row.midi_filename for row in music.performances}
    assert (tmp_path / "out" / name).read_bytes() == midi(9)


def test_a_name_that_is_no_text_is_refused_for_that(
    own_folder: Path, tmp_path: Path, midi: Callable[[int], bytes]
) -> None:
    try:
        (own_folder / os.fsdecode(b"caf\xe9.mid")).write_bytes(midi(9))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    text = refusal(own_folder, tmp_path)
    assert "must have a name in UTF-8, got b'caf\\xe9.mid'. Rename it" in text and "backslash" not in text


class TestOneComposer:
    COMPOSED = unicodedata.normalize("NFC", "Dvořák")
    DECOMPOSED = unicodedata.normalize("NFD", "Dvořák")

    @pytest.fixture
    def rows(self, tmp_path: Path, midi: Callable[[int], bytes]) -> list[Performance]:
        """One piece four times, in folders whose names look the same, and three others."""
        folder = tmp_path / "own"
        two = [f"Antonín {self.COMPOSED}", f"Antonín\u00a0{self.DECOMPOSED}"]
        names = [f"{name}/Dumka{end}.mid" for name in (*two, two[0] + "\u3000") for end in ("", "\u3000")]
        for number, name in enumerate([*names, "B/x.mid", "C/y.mid", "D/z.mid"]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(midi(number))
        return write_folder(folder, tmp_path / "out").performances

    def test_however_the_name_is_written(self, rows: list[Performance]) -> None:
        assert {row.composer for row in rows} == {f"Antonín {self.COMPOSED}", "B", "C", "D"}

    def test_one_composition_is_in_one_split(self, rows: list[Performance]) -> None:
        split = load_params(ROOT / "params.yaml").split
        placed, _ = assign_splits(rows, split.model_copy(update={"method": "by-composition"}))
        assert len({row.split for row in placed if row.title == "Dumka"}) == 1

    def test_a_filter_finds_both(self, rows: list[Performance]) -> None:
        split = load_params(ROOT / "params.yaml").split
        keep = split.model_copy(update={"composers_keep": (f"Antonín {self.DECOMPOSED}",)})
        assert len(keep_composers(rows, keep)) == 6

    def test_a_table_too(self, tmp_path: Path, midi: Callable[[int], bytes]) -> None:
        folder = tmp_path / "own"
        folder.mkdir()
        lines = [HEADER]
        for number, composer in enumerate((self.COMPOSED, self.DECOMPOSED)):
            (folder / f"{number}.mid").write_bytes(midi(number))
            lines.append(f"{composer},Dumka,,{number}.mid,2")
        (folder / "corpus.csv").write_text("\n".join(lines), encoding="utf-8")
        rows = write_folder(folder, tmp_path / "out").performances
        assert {row.composer for row in rows} == {self.COMPOSED}
