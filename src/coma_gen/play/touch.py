"""Adds expression to a file for the page; the results are those of `coma-gen express`, to the byte."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.express import ExpressedFile, express_midi
from coma_gen.generation.touch import TouchRequest
from coma_gen.midi.io import read_notes
from coma_gen.model.device import deterministic
from coma_gen.play.jobs import Event, Report, Work
from coma_gen.play.progress import follow, rows
from coma_gen.play.studio import Studio, escape_dash, quote_command
from coma_gen.serving.schema import Limits, read_midi, read_number

WHOLE, SWITCHES = ("seed", "num"), ("keep_lengths",)
SETTINGS = tuple(field.name for field in fields(TouchRequest))


def parse_touch(row: Mapping[str, Any], limits: Limits, *, name: str) -> tuple[bytes, TouchRequest]:
    """Parses a request {midi, settings of `TouchRequest`}.

    Raises:
        UserError: With every fault of the request.
    """
    known = ("midi", *SETTINGS)
    faults = [Fault(key, f"must be one of {', '.join(known)}") for key in row if key not in known]
    given: dict[str, Any] = {}
    for setting in SETTINGS:
        value = row.get(setting)
        if setting not in SWITCHES:
            value = read_number(value, whole=setting in WHOLE)
        elif value is not None and not isinstance(value, bool):
            value = Fault("", "must be true or false", "something else")
        if isinstance(value, Fault):
            faults.append(Fault(setting, value.rule, value.got))
        elif value is not None:
            given[setting] = value
    request = TouchRequest(**given)
    faults += request.faults()
    if request.num > limits.max_pieces:
        faults.append(Fault("num", f"must be at most {limits.max_pieces} here", f"{request.num}"))
    midi = read_midi(row.get("midi"), limits)
    if isinstance(midi, Fault):
        faults.append(Fault(name, midi.rule, midi.got))
    if faults or isinstance(midi, Fault):
        raise UserError(*faults)
    return midi, request


def touch_work(studio: Studio, row: Mapping[str, Any], name: str) -> Work:
    """Creates the job of a request.

    Raises:
        UserError: If the request is invalid.
    """
    midi, request = parse_touch(row, studio.limits, name=name)

    def work(report: Report) -> Event:
        seconds = read_notes(midi, name=name).end
        report({"begun": {"start": 0.0, "splice": None, "notes": [], "seconds": seconds}})
        with deterministic(studio.threads):
            touches = express_midi(
                studio.composer,
                midi,
                name=name,
                request=request,
                max_tokens=studio.limits.max_tokens,
                watch=follow(report, start=0.0),
            )
        return {"pieces": [_finished(each) for each in touches], "command": command_of(studio, request, name)}

    return work


def command_of(studio: Studio, request: TouchRequest, name: str) -> str:
    """Composes the `coma-gen express` command that reproduces the files: seed and non-default settings."""
    plain = TouchRequest()
    words = ["coma-gen", "express", escape_dash(name)]
    for setting in SETTINGS:
        value = getattr(request, setting)
        if setting == "seed" or value != getattr(plain, setting):
            words.append(f"--{setting.replace('_', '-')}")
            if not isinstance(value, bool):
                words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return quote_command(words, studio)


def _finished(played: ExpressedFile) -> Event:
    return {
        "midi": base64.b64encode(played.midi).decode("ascii"),
        "notes": rows(played.notes),
        "left_out": played.endless,
        "seconds": round(played.notes.end, 2),
        "reached": True,
    }
