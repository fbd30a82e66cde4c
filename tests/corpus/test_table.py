"""The metadata table: accepted values, and every error with its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.core.errors import UserError
from coma_gen.corpus.table import Performance, plain_text, read_table, write_table

HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"


def faults_of(tmp_path: Path, *lines: str) -> str:
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_table(table)
    return str(caught.value)


def test_maestros_own_table_is_read(tmp_path: Path) -> None:
    table = tmp_path / "maestro.csv"
    line = 'A / B,"Aufenthalt, Der Erlkönig",train,2018,2018/a b.midi,2018/a b.wav,698.661160312'
    table.write_bytes(f"\ufeff{HEADER}\r\n{line}\r\n\r\n".encode())
    assert read_table(table) == [
        Performance(
            "A / B",
            "Aufenthalt, Der Erlkönig",
            "train",
            "2018",
            "2018/a b.midi",
            698.661160312,
            audio_filename="2018/a b.wav",
        )
    ]


def test_every_fault_is_reported_with_its_line_and_value(tmp_path: Path) -> None:
    text = faults_of(
        tmp_path,
        HEADER,
        "Bach,T,train,,a.mid,,1.5",
        ",T,val,,../b.mid,,nan",
        "Bach,T,,,a.mid,,-1",
        "Bach,T,,,c.wav,,x",
        "Bach,T,,,/d.mid,,1",
        "Bach,T,,,x\\d.mid,,1",
    )
    for words in (
        "line 3, canonical_composer: must be text, not empty, without control characters, got ''",
        "line 3, split: must be one of train, validation, test, or empty, got 'val'",
        "line 3, midi_filename",
        "got '../b.mid'",
        "line 3, duration: must be seconds, 0 to 86,400, got 'nan'",
        "line 4: midi_filename must be unique (it is also in line 2), got 'a.mid'",
        "line 4, duration: must be seconds, 0 to 86,400, got '-1'",
        "got 'c.wav'",
        "got 'x'",
        "got '/d.mid'",
        "line 7, midi_filename",
    ):
        assert words in text


def test_missing_columns_surplus_cells_and_an_empty_table_are_faults(tmp_path: Path) -> None:
    assert "'canonical_title', got canonical_composer" in faults_of(tmp_path, "canonical_composer", "Bach")
    assert "an empty file" in faults_of(tmp_path, "")
    assert "line 2: must have 7 cells as the header has, got 2" in faults_of(tmp_path, HEADER, "a,b")
    assert "at least one performance" in faults_of(tmp_path, HEADER)
    assert "a row of CSV" in faults_of(tmp_path, HEADER, '"Bach"x,T')
    assert "a column twice" in faults_of(tmp_path, f"{HEADER},split", "Bach,T,,,a.mid,,1,")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    text = faults_of(tmp_path, HEADER, *[f"Bach,T,dev,,{i}.mid,,1" for i in range(50)])
    assert len(text.splitlines()) == 21
    assert "30 more" in text


def test_a_table_that_is_not_utf8_or_not_there_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none.csv")


def test_the_midi_files_must_be_there(tmp_path: Path, row: Callable[..., Performance]) -> None:
    write_table(tmp_path / "t.csv", [row("a.mid"), row("b.mid")])
    (tmp_path / "a.mid").touch()
    with pytest.raises(UserError, match=r"line 3: its MIDI file must exist, got .*b\.mid") as caught:
        read_table(tmp_path / "t.csv", folder=tmp_path)
    assert len(caught.value.faults) == 1


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    str.strip
)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(/[a-z ]{1,3})?", fullmatch=True), st.tuples(text, text), min_size=1
    ),
    st.floats(0, 86_400),
    st.booleans(),
)
def test_the_table_round_trips(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[str, str]], seconds: float, counted: bool
) -> None:
    table = tmp_path_factory.mktemp("t") / "t.csv"
    written = [
        Performance(composer, title, "test", "2018", f"{name}.mid", seconds, "a" * 64, 7 if counted else None)
        for name, (composer, title) in rows.items()
    ]
    write_table(table, written)
    plain = [replace(row, composer=plain_text(row.composer), title=plain_text(row.title)) for row in written]
    assert read_table(table) == sorted(plain, key=lambda each: each.midi_filename)
    first = table.read_bytes()
    write_table(table, reversed(written))
    assert table.read_bytes() == first
