"""Inconsistent, huge or damaged MIDI files are rejected by name; valid ones lose no note."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from midi_builder import Event, note, pedal, program, smf, tempo, track

from coma_gen.config.schema import TokenizerParams
from coma_gen.core.errors import UserError
from coma_gen.corpus import read as reading
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.read import read_all, read_performance
from coma_gen.corpus.split import split_corpus
from coma_gen.midi import io as midi
from coma_gen.midi import smf as events
from coma_gen.midi import tempo_map
from coma_gen.midi.io import read_notes
from coma_gen.midi.prompt import read_prompt
from coma_gen.tokenizer.remi import Tokenizer
from faults.budgets import BOTH_FORMS, Form, search
from faults.mutations import mutated
from faults.runaway_workers import wild_read
from faults.settings import DOWNLOAD, SPLIT, TOKENIZER

Tally = Callable[[str, str, int], None]


def raw(body: bytes, *, tracks: int = 1, division: int = 480) -> bytes:
    """A file of one track with a body written by hand."""
    return smf(*[b"MTrk" + struct.pack(">I", len(body)) + body] * tracks, division=division)


END = b"\x00\xff\x2f\x00"
ON, OFF = b"\x00\x90\x3c\x40", b"\x60\x80\x3c\x00"
GOOD = smf(track(tempo(0, 400_000), pedal(0, 127), *note(0, 480), pedal(500, 0), *note(9, 700, 61)))
TWO = smf(track(*note(0, 480)), track(*note(0, 480, 72, channel=1)))
EVIL: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "a web page": (b"<!DOCTYPE html>", "begins with 'MThd'"),
    "a tune in ABC": (b"X:1\nT:tune\nK:C\nCDEF", "begins with 'MThd'"),
    "RIFF": (b"RIFF" + bytes(30), "begins with 'MThd'"),
    "only a header": (GOOD[:14], "0 tracks where its header states 1"),
    "half a header": (GOOD[:9], "a header that is cut off after 9 of 14 bytes"),
    "format 2": (smf(track(*note(0, 1)), form=2), "format 2"),
    "format 65535": (smf(track(*note(0, 1)), form=65535), "format 65535"),
    "SMPTE time": (smf(track(*note(0, 1)), division=0xE728), "SMPTE"),
    "no resolution": (smf(track(*note(0, 1)), division=0), "no resolution"),
    "a header of no length": (GOOD[:4] + bytes(4) + GOOD[8:], "format 0 or 1"),
    "a header longer than the file": (GOOD[:7] + bytes([len(GOOD)]) + GOOD[8:], "whole MIDI file"),
    "cut by a byte": (GOOD[:-1], "ends 1 bytes early"),
    "cut between two tracks": (TWO[: TWO.index(b"MTrk", 20)], "1 tracks where its header states 2"),
    "more tracks than it tells of": (TWO[:11] + b"\x01" + TWO[12:], "2 tracks where its header states 1"),
    "no tracks told of": (GOOD[:10] + bytes(2) + GOOD[12:], "1 tracks where its header states 0"),
    "a track longer than the file": (GOOD[:21] + bytes([len(GOOD)]) + GOOD[22:], "bytes early"),
    "a delta of five bytes": (raw(b"\xff" * 4 + b"\x7f\x90\x3c\x40" + END), "more than four bytes"),
    "a delta of nothing else": (raw(b"\xff" * 9), "more than four bytes"),
    # behind each of these stands another track, so that nobody leaves the file who believes it
    "a text longer than the track": (raw(b"\x00\xff\x01\x08" + ON, tracks=2), "cut off"),
    "a sysex longer than the track": (raw(b"\x00\xf0\x08" + ON, tracks=2), "cut off"),
    "data without a status": (raw(b"\x00\x3c\x40" + END), "whole MIDI file"),
    "an event cut off": (raw(ON + b"\x60\x80\x3c", tracks=2), "whole MIDI file"),
    "a real-time status": (raw(ON + b"\x00\xf8" + OFF + END), "the status F8"),
    "a song position": (raw(ON + b"\x00\xf2\x00\x00" + OFF + END), "the status F2"),
    "a pitch of 200": (raw(b"\x00\x90\xc8\x40\x60\x80\xc8\x00" + END), "whole MIDI file"),
    "a velocity of 200": (raw(b"\x00\x90\x3c\xc8\x60\x80\x3c\x00" + END), "whole MIDI file"),
    "a pedal of 200": (raw(ON + b"\x00\xb0\x40\xc8" + OFF + END), "whole MIDI file"),
    "more tracks than a byte can tell of": (smf(track()) + b"MTrk\0\0\0\0" * 300, "301 tracks"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_each_evil_file_is_refused_by_name(name: str, tmp_path: Path, tally: Tally) -> None:
    content, words = EVIL[name]
    path = tmp_path / "evil.mid"
    path.write_bytes(content)
    for read in (read_notes, read_prompt):
        with pytest.raises(UserError) as caught:
            read(path)
        assert words in str(caught.value) and str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    tally("a MIDI file made to lie, blow up or mislead", "refused by name, as corpus and as prompt", 2)


def test_what_claims_too_much_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 10_000)
    monkeypatch.setattr(midi, "MAX_BYTES", 200_000)
    bodies = {
        "notes": b"\x00\x90\x3c\x40" + b"\x00\x3c\x00\x00\x3c\x40" * 10_000,
        "pedals": b"\x00\xb0\x40\x40" + b"\x01\x40\x7f\x01\x40\x00" * 10_000,
        "tempi": b"\x00\xff\x51\x03\x07\xa1\x20" * 11_000,
        "texts": b"\x00\xff\x01\x00" * 11_000,
    }
    for body in bodies.values():
        with pytest.raises(UserError, match="more than 10,000 events"):
            read_notes(raw(body + END), name="a.mid")
    with pytest.raises(UserError, match="must have at most"):
        read_notes(raw(b"\x00\xff\x01\x00" * 60_000), name="a.mid")
    tally("a MIDI file of too many bytes or events", "refused before it is parsed", len(bodies) + 1)


def test_what_lasts_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setattr(midi, "MAX_SECONDS", 36.0)
    last = 72 * 480  # ticks at half a second a quarter
    for event in ([*note(9, 19), *note(last - 9, last)], [*note(9, 19), pedal(last - 9, 1), pedal(last, 0)]):
        assert len(read_notes(smf(track(*event)))) == (2 if len(event) == 4 and event[2][1][0] == 0x90 else 1)
        late = [*event[:-1], (last + 1, event[-1][1])]
        for read in (read_notes, read_prompt):
            with pytest.raises(UserError, match=r"must last at most 0\.01 hours"):
                read(smf(track(*late)))
    tally("a MIDI file that lasts too long", "refused by name, as corpus and as prompt", 4)


def test_what_has_no_tempo_is_refused(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    def refuse(
        *_arguments: object, **_options: object
    ) -> None:  # as it does a tempo of 0: tests/midi/test_smf_writer.py
        raise ValueError

    monkeypatch.setattr(tempo_map.TempoMap, "of", refuse)
    for read in (read_notes, read_prompt):
        with pytest.raises(UserError, match="must have tempi above 0"):
            read(smf(track(tempo(0, 1_000), *note(0, 1))))
    tally("a MIDI file with a tempo of nothing", "refused by name, as corpus and as prompt", 2)


def test_what_has_too_many_ticks_is_refused(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setattr(events, "MAX_TICKS", 1_000)
    for end in (500, 1_000):
        assert len(read_notes(smf(track(*note(0, end)), track(*note(0, end, 72))))) == 2
    for late in (track(*note(0, 1_001)), track(*note(0, 9), (1_001, b"\xb0\x07\x40"))):
        with pytest.raises(UserError, match="an event at tick 1,001, beyond 1,000"):
            read_notes(smf(track(*note(0, 9)), late), name="a.mid")
    tally("a MIDI file of more ticks than others can count", "refused by name", 2)


def test_what_has_too_many_notes_is_refused(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setattr(midi, "MAX_NOTES", 1_000)

    def notes(number: int) -> bytes:
        return raw(b"".join(ON + OFF for _ in range(number)) + END)

    assert len(read_notes(notes(1_000))) == 1_000
    for read in (read_notes, read_prompt):
        with pytest.raises(UserError, match="at most 1,000 notes, got 1,001"):
            read(notes(1_001))
    tally("a MIDI file of too many notes", "refused by name, as corpus and as prompt", 2)


@st.composite
def valid_files(draw: st.DrawFn) -> tuple[bytes, int]:
    """A file as some program could write it, and how many notes it has."""
    ticks = st.integers(0, 5_000)
    tracks, count = [], 0
    for _ in range(draw(st.integers(1, 3))):
        played: list[Event] = []
        for start, length, pitch, channel in draw(
            st.lists(
                st.tuples(ticks, st.integers(1, 900), st.integers(0, 127), st.sampled_from((0, 1, 9, 15)))
            )
        ):
            played += note(start, start + length, pitch, channel=channel)
            count += channel != 9
        for tick, value, channel in draw(st.lists(st.tuples(ticks, st.integers(0, 127), st.integers(0, 15)))):
            played.append(pedal(tick, value, channel))
        for tick, value in draw(st.lists(st.tuples(ticks, st.integers(1, 2**24 - 1)), max_size=3)):
            played.append(tempo(tick, value))
        for tick, value in draw(st.lists(st.tuples(ticks, st.integers(0, 127)), max_size=3)):
            played.append(program(tick, value))
        for tick, text in draw(st.lists(st.tuples(ticks, st.binary(max_size=20)), max_size=3)):
            played.append((tick, b"\xff\x01" + bytes([len(text)]) + text))
        tracks.append(track(*played))
    return smf(*tracks, division=draw(st.sampled_from((1, 24, 96, 384, 480, 0x7FFF)))), count


def a_track(seed: int) -> bytes:
    """What is in a track that has something of everything."""
    dice = random.Random(seed)
    played: list[Event] = [(0, b"\xff\x03\x05Piano"), (0, b"\xff\x58\x04\x03\x03\x18\x08")]
    for _ in range(dice.randint(2, 12)):
        start, channel = dice.randrange(3_000), dice.choice((0, 0, 1, 9))
        played += note(start, start + dice.randint(1, 900), dice.randrange(128), channel=channel)
        played.append(pedal(dice.randrange(3_000), dice.choice((0, 63, 64, 127)), channel))
    played += [tempo(dice.randrange(3_000), dice.randint(1, 900_000)), program(9, dice.randrange(128))]
    played += [(50, b"\xf0\x03\x43\x12\xf7"), (60, b"\xe0\x00\x40"), (70, b"\xd0\x40")]
    return track(*played)[8:]


FILES = [GOOD, TWO, smf(track(*note(0, 9)), form=0), *(raw(a_track(seed)) for seed in range(10))]
TRACKS = [a_track(seed) for seed in range(10, 40)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.build(TokenizerParams.model_validate(TOKENIZER))


@pytest.mark.parametrize("form", BOTH_FORMS)
class TestSearch:
    def test_no_note_of_a_good_file_is_lost(self, form: Form, tally: Tally) -> None:
        def check(pair: tuple[bytes, int]) -> None:
            content, count = pair
            try:
                assert len(read_notes(content)) == count
            except UserError as error:
                assert "12 hours" in str(error)

        times = search(check, valid_files(), form, batch=80, of=10)
        tally("any good file", "every note is read", times)

    def test_no_change_of_bytes_breaks_a_reader(self, form: Form, tokenizer: Tokenizer, tally: Tally) -> None:
        def check(content: bytes) -> None:
            try:
                notes = read_notes(content, name="evil.mid")
            except UserError as error:
                assert len(error.faults) == 1 and error.faults[0].where == "evil.mid"
                with pytest.raises(UserError):
                    read_prompt(content)
                return
            assert notes.end <= midi.MAX_SECONDS and (notes.onset >= 0).all()
            assert len(tokenizer.encode(notes)) <= 8 * len(notes) + notes.end + 100
            try:  # twice as long may be longer than may be, or than its ticks can say
                prompt = read_prompt(content)
                continued = read_notes(prompt.append_track(notes.shifted(prompt.notes.end)))
            except UserError as error:
                assert len(str(error).splitlines()) == 1
            else:
                assert len(continued) >= len(prompt.notes) > 0

        # changed tracks in chunks of the right length get a reader as far as the events
        inputs = st.one_of(mutated(*FILES), mutated(*TRACKS).map(raw), st.binary(max_size=60))
        times = search(check, inputs, form, batch=250)
        tally(
            "a MIDI file with bytes changed, cut, doubled or moved",
            "read within bounds, or one clear line",
            times,
        )


class TestACorpus:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        wanted = DOWNLOAD.model_copy(update={"synthetic_performances": 10})
        build_corpus(wanted, tmp_path / "corpus", cache=tmp_path, own_folder=tmp_path)
        return tmp_path / "corpus"

    def test_files_that_end_their_readers_are_counted_as_unreadable(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        monkeypatch.setattr(reading, "_read", wild_read)
        monkeypatch.setattr(reading, "SECONDS", 1.0)
        monkeypatch.setattr(reading, "MEMORY", 2**28)
        reasons = ("1 s of work", "256 MiB of memory", "ended by SIGKILL", "ended by SIGSEGV")
        with pytest.raises(UserError) as caught:
            split_corpus(SPLIT, corpus, tmp_path / "split")
        assert len(caught.value.faults) == 4 and not (tmp_path / "split").exists()
        for fault, reason in zip(caught.value.faults, reasons, strict=True):
            assert fault.where.endswith(".midi") and reason in fault.got
            assert fault.rule == "must be readable within 1 s and 256 MiB"
        allowed = SPLIT.model_copy(update={"max_unreadable": 4})
        metrics = split_corpus(allowed, corpus, tmp_path / "split")
        assert metrics["unreadable"]["performances"] == len(metrics["unreadable"]["files"]) == 4
        assert sum(metrics[name]["performances"] for name in ("train", "validation", "test")) == 6
        tally(
            "a file that hangs, fills the memory, or kills its reader",
            "counted and named; refuses above the limit",
            8,
        )

    def test_a_pipe_and_a_folder_of_the_name_do_not_hang(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        import os

        monkeypatch.setattr(reading, "SECONDS", 1.0)
        os.mkfifo(tmp_path / "pipe.mid")
        (tmp_path / "folder.mid").mkdir()
        (tmp_path / "good.mid").write_bytes(GOOD)
        pipe, folder, none, good = read_all(
            [tmp_path / f"{name}.mid" for name in ("pipe", "folder", "none", "good")]
        )
        assert pipe.got == "more than 1 s of work"
        assert "directory" in folder.got and "No such file" in none.got
        assert (good.notes, good.reason) == (2, "")
        tally("a pipe, a folder or nothing in place of a file", "one clear reason", 3)

    def test_a_file_that_changed_after_the_split_is_refused(
        self, corpus: Path, tmp_path: Path, tally: Tally
    ) -> None:
        from coma_gen.corpus.table import read_table

        split_corpus(SPLIT, corpus, tmp_path / "split")
        rows = read_table(tmp_path / "split" / "train.csv")
        for row in rows:
            assert len(read_performance(corpus, row)) > 0
            content = bytearray((corpus / row.midi_filename).read_bytes())
            content[len(content) // 2] ^= 1
            (corpus / row.midi_filename).write_bytes(content)
            with pytest.raises(UserError, match="must be the file that the split was made from"):
                read_performance(corpus, row)
        tally("a MIDI file that changed after the split", "refused by name", len(rows))
