"""A fault is formatted as one line."""

from __future__ import annotations

from coma_gen.core.errors import MAX_SHOWN, Fault, UserError


def test_it_says_where_what_must_hold_what_was_found_and_what_to_do() -> None:
    assert str(Fault("a.csv, line 3", "must be a year")) == "a.csv, line 3: must be a year"
    text = str(Fault("a.csv", "must be a year", "'x'", "write 2018"))
    assert text == "a.csv: must be a year, got 'x'. Write 2018"
    assert str(UserError(Fault("a", "b"), Fault("c", "d"))) == "a: b\nc: d"


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    text = str(Fault("a\x1b[2J\n.mid", "must be\rmusic", "\x07\u202e\ud800é\xa0", "\x85"))
    assert text.isprintable()
    assert text == "a\\x1b[2J\\n.mid: must be\\rmusic, got \\x07\\u202e\\ud800é\\xa0. \\x85"


def test_a_value_of_a_megabyte_is_shortened() -> None:
    text = str(Fault("a", "must be short", "x" * 10**6))
    assert len(text) < MAX_SHOWN + 100 and text.endswith("... (1,000,000 characters)")
