"""Metadata tables with every kind of error: each is reported with row and value, and no other row is lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import UserError
from coma_gen.corpus.folder import write_folder
from coma_gen.corpus.split import split_corpus
from coma_gen.corpus.synthetic import write_synthetic
from coma_gen.corpus.table import SPLITS, is_midi_name, read_table
from faults.budgets import BOTH_FORMS, Form, search
from faults.mutations import mutated

Tally = Callable[[str, str, int], None]
HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"
GOOD = "Bach,Fugue,train,2018,a.mid,a.wav,12.5"
SECOND = 'Verdi / Liszt,"Rigoletto, Parap.",test,,b c.midi,,7'


def table(*lines: str) -> bytes:
    return "\n".join([HEADER, *lines, ""]).encode()


def cell(column: str, value: str) -> bytes:
    """A table whose third line has one other value."""
    row = next(csv.DictReader(io.StringIO(f"{HEADER}\n{GOOD}\n"))) | {"midi_filename": "z.mid", column: value}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row.values())
    return table(GOOD, text.getvalue().rstrip("\n"))


BAD_CELLS = {
    "canonical_composer": ["", "   ", "a\x1b[2Jb", "a\nb", "a\0b", "a\u2028b"],
    "canonical_title": ["", "\t", "a\rb"],
    "split": ["Train", "val", "valid", "dev", "train ", "0", "test,train", "train;"],
    "year": ["18", "two thousand", "2018.0", "-2018", "20181", "２０１８"],
    "midi_filename": ["", "a", "a.wav", "../a.mid", "/a.mid", "a/../b.mid", "./a.mid", "a//b.mid", "C:/a.mid",
                      "c:a.mid", "a\\b.mid", "a\nb.mid", "\x00.mid", ".", "..", "a.mid/", "~/a.mid\x7f",
                      "a\u202eb.mid"],
    "duration": ["", "x", "-1", "nan", "inf", "-inf", "1e999", "1_0", "１２", " 1", "1,5", "0x10", "86400.1",
                 "1:30", "9" * 400],
    "audio_filename": ["a\x07.wav"],
}  # fmt: skip
SHAPES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "an empty file"),
    "only a header": (table(), "at least one performance"),
    "no header": (GOOD.encode(), "must have a column 'canonical_composer'"),
    "a column missing": (b"canonical_composer,canonical_title,duration\nBach,Fugue,1\n", "'midi_filename'"),
    "a column twice": (f"{HEADER},split\n{GOOD},test\n".encode(), "a column twice, got split"),
    "a row too short": (table(GOOD, "Bach,Fugue"), "line 3: must have 7 cells"),
    "a row too long": (table(GOOD, f"{SECOND},more"), "line 3: must have 7 cells as the header has, got 8"),
    "semicolons": (table(GOOD).replace(b",", b";"), "must have a column"),
    "tabs": (table(GOOD).replace(b",", b"\t"), "must have a column"),
    "a quote left open": (table(GOOD, 'Bach,"Fugue'), "a row of CSV"),
    "text behind a quote": (table(GOOD, '"Bach"x,Fugue,,,b.mid,,1'), "line 3: must be a row of CSV"),
    "UTF-16": (table(GOOD).decode().encode("utf-16"), "must be UTF-8"),
    "Latin-1": (table(GOOD.replace("Bach", "Frédéric")).decode().encode("latin-1"), "must be UTF-8"),
    "a name twice": (table(GOOD, GOOD), "line 3: midi_filename must be unique (it is also in line 2)"),
    "one file in two splits": (table(GOOD, GOOD.replace("train", "test")), "must be unique"),
    "zip": (b"PK\x03\x04\xff", "must be UTF-8"),
}  # fmt: skip


def refusal(content: bytes, folder: Path) -> str:
    path = folder / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_table(path)
    text = str(caught.value)
    assert str(path) in text and len(text.splitlines()) == len(caught.value.faults)
    assert text.isprintable() or "\n" in text
    return text


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_of_the_wrong_shape_is_refused(name: str, tmp_path: Path, tally: Tally) -> None:
    content, words = SHAPES[name]
    assert words in refusal(content, tmp_path)
    tally("a table of the wrong shape or encoding", "refused with its line and value", 1)


def test_a_cell_of_more_characters_than_csv_reads_is_refused(tmp_path: Path, tally: Tally) -> None:
    limit = csv.field_size_limit(100)
    try:
        (tmp_path / "t.csv").write_bytes(table(GOOD.replace("Bach", "B" * 100)))
        assert read_table(tmp_path / "t.csv")[0].composer == "B" * 100
        text = refusal(table(GOOD.replace("Bach", "B" * 101)), tmp_path)
    finally:
        csv.field_size_limit(limit)
    assert "line 2: must be a row of CSV, got field larger" in text
    tally("a table of the wrong shape or encoding", "refused with its line and value", 1)


@pytest.mark.parametrize("column", BAD_CELLS)
def test_each_wrong_value_is_refused_with_its_line(column: str, tmp_path: Path, tally: Tally) -> None:
    for value in BAD_CELLS[column]:
        text = refusal(cell(column, value), tmp_path)
        shown = value if value.isprintable() and len(value) < 300 else ""
        assert f", {column}: must be" in text and repr(shown)[1:-1] in text, value
    tally("a wrong value in a table", "refused with its line and value", len(BAD_CELLS[column]))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n,,,,,,\n",
        lambda text: text.replace(b"ion\n", b"ion,x\n").replace(b"5\n", b"5,y\n").replace(b",7\n", b",7,\n"),
    ],
    ids=["byte order mark", "CRLF", "CR", "no last line end", "empty lines", "another column"],
)  # fmt: skip
def test_harmless_habits_lose_no_row(change: Callable[[bytes], bytes], tmp_path: Path, tally: Tally) -> None:
    (tmp_path / "t.csv").write_bytes(change(table(GOOD, SECOND)))
    rows = read_table(tmp_path / "t.csv")
    assert [(row.composer, row.midi_filename, row.duration) for row in rows] == [
        ("Bach", "a.mid", 12.5),
        ("Verdi / Liszt", "b c.midi", 7.0),
    ]
    tally("a byte order mark, other line ends, further columns", "every row is read", 1)


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_no_change_of_bytes_breaks_the_reader(form: Form, tmp_path: Path, tally: Tally) -> None:
    """What comes through has the right types; everything else is a `UserError` that names the table."""
    path = tmp_path / "t.csv"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            rows = read_table(path)
        except UserError as error:
            assert all(str(path) in fault.where or fault.where == "and" for fault in error.faults)
            assert len(str(error).splitlines()) == len(error.faults) <= 21
            return
        assert rows and len({row.midi_filename for row in rows}) == len(rows)
        for row in rows:
            assert is_midi_name(row.midi_filename) and row.split in ("", *SPLITS)
            assert row.composer.strip() and row.title.strip() and 0 <= row.duration <= 86_400

    seeds = [table(GOOD, SECOND), b"\xef\xbb\xbf" + table(GOOD).replace(b"\n", b"\r\n")]
    text = st.text(st.sampled_from('"",\n\r\0\ufeff;aé1.-'), max_size=200).map(str.encode)
    inputs = st.one_of(mutated(*seeds), text.map(lambda rows: table(rows.decode())), text)
    times = search(check, inputs, form, batch=150)
    tally("a table with bytes changed, cut, doubled or moved", "read right, or refused by line", times)


class TestAFolderOfOnesOwn:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        folder = tmp_path / "own"
        write_synthetic(folder, performances=3, seconds=5.0, seed=1)
        return folder

    def rows(self, own: Path, *splits: str) -> None:
        names = sorted(path.relative_to(own).as_posix() for path in own.rglob("*.mid*"))
        lines = [
            f"C,T{i},{split},,{name},,5" for i, (split, name) in enumerate(zip(splits, names, strict=False))
        ]
        (own / "corpus.csv").write_bytes(table(*lines))

    def test_the_same_bytes_in_two_splits_are_refused(self, own: Path, tmp_path: Path, tally: Tally) -> None:
        first, second = sorted(own.rglob("*.mid*"))[:2]
        second.write_bytes(first.read_bytes())
        self.rows(own, "train", "test", "validation")
        with pytest.raises(
            UserError, match=r"must be in the split of .*, whose bytes it has, 'train', got 'test'"
        ):
            write_folder(own, tmp_path / "out")
        tally("one recording under two names in two splits", "refused with both", 1)

    def test_a_missing_file_is_refused_and_a_surplus_one_named(
        self, own: Path, tmp_path: Path, tally: Tally
    ) -> None:
        self.rows(own, "train", "test")
        left_out = sorted(own.rglob("*.mid*"))[2].relative_to(own).as_posix()
        assert write_folder(own, tmp_path / "out").not_in_table == [left_out]
        sorted(own.rglob("*.mid*"))[0].unlink()
        with pytest.raises(UserError, match="line 2: its MIDI file must exist"):
            write_folder(own, tmp_path / "again")
        tally(
            "files that the table names and that are not there, and the other way",
            "refused, and counted by name",
            2,
        )

    def test_an_empty_split_is_refused(self, own: Path, tmp_path: Path, tally: Tally) -> None:
        from coma_gen.core.artifact import write_manifest
        from coma_gen.corpus.table import write_table

        self.rows(own, "train", "train", "test")
        music = write_folder(own, tmp_path / "out")
        write_table(tmp_path / "out" / "corpus.csv", music.performances)
        write_manifest(tmp_path / "out", kind="corpus", made_from={}, settings={})
        params = {"method": "official", "validation_fraction": 0.1, "test_fraction": 0.1, "seed": 0}
        filters = {
            "composers_keep": (),
            "composers_drop": (),
            "composers_top": None,
            "composers_top_by": "hours",
        }
        with pytest.raises(UserError, match="must leave no split empty, 'validation' is"):
            split_corpus(
                SplitParams.model_validate({**params, **filters, "max_unreadable": 0}),
                tmp_path / "out",
                tmp_path / "split",
            )
        assert not (tmp_path / "split").exists()
        tally("a table that leaves a split empty", "refused by the split's name", 1)
