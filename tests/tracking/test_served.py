"""Validation of requests: every error is reported, and invalid requests are rejected."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.core.errors import UserError
from coma_gen.generation.request import Request
from coma_gen.serving.schema import SETTINGS, Limits, parse_request

LIMITS = Limits()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner))
ROWS = st.dictionaries(st.sampled_from(("midi", *SETTINGS, "other")), VALUES, max_size=4)


def test_what_is_left_open_is_as_on_the_command_line() -> None:
    (row,) = parse_request([{"seed": None, "midi": None}], LIMITS)
    assert row.midi is None
    assert row.request == Request(tokens=LIMITS.max_tokens)
    assert parse_request([{}], Limits(max_seconds=2.0))[0].request.seconds == 2.0


def test_every_setting_of_a_request_comes_through_as_its_own_kind() -> None:
    request = Request(20.0, 500, 3, 5, 2**62 + 1, 0.5, 5, 0.9, 0.1, "pitch,bar", 4, 2, 1.0, 8.0)
    text = base64.b64encode(b"MThd").decode()
    (row,) = parse_request(json.loads(json.dumps([{"midi": text, **asdict(request)}])), LIMITS)
    assert (row.midi, row.request) == (b"MThd", request)
    (row,) = parse_request([{"midi": text, "seconds": 20, "seed": 3.0}], LIMITS)
    assert [type(row.request.seconds), type(row.request.seed)] == [float, int]


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([], ["inputs: must be a list"]),
        ({"seconds": 1}, ["inputs: must be a list of objects .*, got an object"]),
        (["x"], ["inputs: must be a list of objects"]),
        ([{"secnds": 1}], [r"inputs\[0\]\.secnds: must be one of midi, seconds, "]),
        ([{"seconds": "20"}], ["seconds: must be a number, got text"]),
        ([{"seconds": True}], ["seconds: must be a number, got true or false"]),
        ([{"seconds": float("nan")}], ["seconds: must be above 0 .*, got nan"]),
        ([{"seconds": 10**400}], ["seconds: must be above 0 .*, got inf"]),
        ([{"seconds": 301}], ["seconds: must be at most 300.0 here, got 301.0"]),
        ([{"tokens": 20_001}], ["tokens: must be at most 20,000 here"]),
        ([{"seed": 1.5}], ["seed: must be a whole number, got 1.5"]),
        ([{"seed": float("inf")}], ["seed: must be a whole number, got inf"]),
        ([{"top_p": 0}], ["top_p: must be above 0"]),
        ([{"truncate": "keys"}], ["truncate: must be some of bar, position, pitch"]),
        ([{"truncate": ["pitch"]}], ["truncate: must be text, got a list"]),
        ([{"midi": "***"}], ["midi: must be a MIDI file .* as base64 text, got other text"]),
        ([{"midi": "\ud800"}], ["midi: must be a MIDI file"]),
        ([{"midi": 5}], ["midi: .* got a number"]),
        ([{"midi": "A" * 1_400_000}], ["midi: .* got 1,400,000 characters"]),
        ([{"from_second": 1.0}], ["from_second: is for a row with midi only"]),
        ([{}] * 17, ["inputs: must be at most 16 rows, got 17"]),
        ([{"best_of": 4}], ["best_of: is for a row with midi only"]),
        ([{"num": 9}, {"num": 8}], ["inputs: must ask for at most 16 pieces together, got 17"]),
        ([{"top_p": 3}, {"x": 1, "seed": -1}], [r"\[0\]\.top_p", r"\[1\]\.x", r"\[1\]\.seed"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_met_is_refused_with_every_reason(rows: Any, reasons: list[str]) -> None:
    with pytest.raises(UserError, match="(?s)" + ".*".join(reasons)) as caught:
        parse_request(rows, LIMITS)
    assert len(caught.value.faults) == len(reasons)


@given(VALUES | st.lists(ROWS, max_size=3))
def test_whatever_is_asked_is_understood_within_limits_or_refused(rows: Any) -> None:
    try:
        understood = parse_request(rows, LIMITS)
    except UserError:
        return
    for row in understood:
        assert row.request.faults() == []
        assert (row.request.seconds or 0) <= LIMITS.max_seconds
        assert row.request.tokens is not None and row.request.tokens <= LIMITS.max_tokens


def test_a_request_of_allowed_prompts_fits_the_bound_on_bytes() -> None:
    limits = Limits(max_prompt_bytes=5000, max_pieces=3)
    row = dict.fromkeys(SETTINGS, 0.1234567890123456) | {"midi": base64.b64encode(bytes(5000)).decode()}
    assert len(json.dumps({"inputs": [row] * 3}, indent=8)) <= limits.max_body_bytes


def test_limits_that_let_nothing_through_are_refused() -> None:
    assert [fault.where for fault in Limits(0.0, -1, 0, 0, 0).faults()] == list(asdict(LIMITS))
    assert LIMITS.faults() == []
