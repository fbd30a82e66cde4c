"""Round-trip errors of the tokenizer, measured on notes.

Each note (with the pedal handled according to the params) is matched to the decoded note of the same pitch
that is nearest in time, if the two are mutual nearest neighbors. Unmatched notes were lost or added. Matching
does not use the tokenizer's grid, so drift is detected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import TokenizerParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.notes import Notes
from coma_gen.midi.sustain import apply_sustain
from coma_gen.tokenizer.remi import Tokenizer

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
PITCH_STRIDE = 1e6
"""Offset in seconds between the time axes of neighboring pitches on a common axis."""
MAX_DISTANCE_SECONDS = 1.0
"""Maximum distance of matched notes."""


def fidelity(tokenizer: Tokenizer, music: Iterable[Notes]) -> dict[str, Any]:
    """Compares decode(encode(x)) with x over some music.

    Returns:
        performances, notes, notes_lost, notes_added; onset_error_ms, duration_error_ms and velocity_error,
        each with mean (signed), rms and max (absolute); durations_clipped: notes longer than the longest bin,
        whose errors are in clipped_error_ms instead of duration_error_ms; end_ratio: last decoded onset /
        last true onset, farthest from 1 over the performances; end_drift: maximum shift of the last onset
        beyond half an onset step, as a fraction of the performance; pedal_events and pedal_events_lost (a
        press and a release are two; under `extend` and `ignore` all are lost as events); tokens_per_note
        (notes of the MIDI file, without BOS and EOS); vocabulary_used: fraction of the ids that occur.
    """
    onset, duration, velocity, clipped = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)], [np.zeros(0, bool)]
    kinds = ("performances", "notes", "lost", "added", "clipped", "pedal", "pedal_decoded", "tokens")
    counts = dict.fromkeys(kinds, 0)
    used_ids = np.zeros(tokenizer.vocab_size, bool)
    ratios, drifts = [1.0], [0.0]
    longest = tokenizer.vocabulary.duration_seconds[-1] + tokenizer.vocabulary.duration_step_seconds[-1] / 2
    for raw in music:
        true = apply_sustain(raw) if tokenizer.vocabulary.pedal == "extend" else raw
        ids = tokenizer.encode(raw)
        decoded = tokenizer.decode(ids)
        used_ids[ids] = True
        ours, theirs = match_notes(true, decoded)
        onset.append(decoded.onset[theirs] - true.onset[ours])
        duration.append(decoded.duration[theirs] - true.duration[ours])
        velocity.append(decoded.velocity[theirs].astype(float) - true.velocity[ours])
        clipped.append(true.duration[ours] > longest)
        counts["performances"] += 1
        counts["notes"] += len(raw)
        counts["tokens"] += len(ids)
        counts["lost"] += len(true) - len(ours)
        counts["added"] += len(decoded) - len(theirs)
        counts["clipped"] += int(np.count_nonzero(true.duration > longest))
        counts["pedal"] += 2 * len(raw.pedal)
        counts["pedal_decoded"] += 2 * len(decoded.pedal)
        ratio, drift = _compare_ends(true, decoded, 0.5 / tokenizer.vocabulary.positions_per_second)
        ratios.append(ratio)
        drifts.append(drift)
    lengths, is_clipped = np.concatenate(duration) * 1000, np.concatenate(clipped)
    return {
        "performances": counts["performances"],
        "notes": counts["notes"],
        "notes_lost": counts["lost"],
        "notes_added": counts["added"],
        "onset_error_ms": _spread(np.concatenate(onset) * 1000),
        "duration_error_ms": _spread(lengths[~is_clipped]),
        "velocity_error": _spread(np.concatenate(velocity)),
        "end_ratio": max(ratios, key=lambda ratio: abs(ratio - 1)),
        "end_drift": max(drifts),
        "durations_clipped": counts["clipped"],
        "clipped_error_ms": _spread(lengths[is_clipped]),
        "pedal_events": counts["pedal"],
        "pedal_events_lost": max(0, counts["pedal"] - counts["pedal_decoded"]),
        "tokens_per_note": counts["tokens"] / max(1, counts["notes"]),
        "vocabulary_used": float(used_ids.mean()),
    }


def match_notes(one: Notes, other: Notes) -> tuple[Indices, Indices]:
    """Returns indices (M,) into both of the notes that are mutual nearest neighbors of the same pitch."""
    if not len(one) or not len(other):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    there, gap = _nearest(_common_axis(one), _common_axis(other))
    back, _ = _nearest(_common_axis(other), _common_axis(one))
    mutual = (back[there] == np.arange(len(one))) & (gap <= MAX_DISTANCE_SECONDS)
    return np.flatnonzero(mutual), there[mutual]


def check(by_split: Mapping[str, Mapping[str, Any]], params: TokenizerParams) -> None:
    """Checks that the round-trip errors are within the limits of the params.

    Args:
        by_split: Split -> result of `fidelity`.
        params: Tokenizer section with the limits.

    Raises:
        UserError: With one fault for each limit exceeded on a split.
    """
    faults = []
    for split, measured in by_split.items():
        rms, drift = measured["onset_error_ms"]["rms"], measured["end_drift"]
        if rms > params.max_onset_rms_ms:
            rule = f"the RMS onset error must not exceed {params.max_onset_rms_ms:g} ms"
            got, remedy = f"{rms:.3g} ms on {split}", "raise tokenizer.positions_per_beat"
            faults.append(Fault("tokenizer.max_onset_rms_ms", rule, got, remedy))
        if drift > params.max_end_ratio_error:
            rule = f"the relative error of the length must not exceed {params.max_end_ratio_error:g}"
            faults.append(Fault("tokenizer.max_end_ratio_error", rule, f"{drift:.3g} on {split}"))
    if faults:
        raise UserError(*faults)


def _common_axis(notes: Notes) -> Floats:
    """Maps notes to one axis (N,), with a separate interval for each pitch."""
    return np.asarray(notes.onset + PITCH_STRIDE * notes.pitch.astype(np.float64), np.float64)


def _nearest(points: Floats, among: Floats) -> tuple[Indices, Floats]:
    """Returns index of and distance to the nearest of `among` (M,) for each point (N,); of two equally near
    the earlier.
    """
    order = np.argsort(among, kind="stable")
    line = among[order]
    right = np.clip(np.searchsorted(line, points, side="left"), 0, len(line) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(line[left] - points) <= np.abs(line[right] - points), left, right)
    return np.asarray(order[nearest], np.int64), np.asarray(np.abs(line[nearest] - points), np.float64)


def _spread(errors: Floats) -> dict[str, float]:
    if not len(errors):
        return {"mean": 0.0, "rms": 0.0, "max": 0.0}
    rms = float(np.sqrt(np.mean(errors**2)))
    return {"mean": float(errors.mean()), "rms": rms, "max": float(np.abs(errors).max())}


def _compare_ends(true: Notes, decoded: Notes, tolerance: float) -> tuple[float, float]:
    """Returns the ratio of the last onsets and their relative difference beyond `tolerance` (s)."""
    last = float(true.onset.max(initial=0.0))
    if last == 0.0:
        return 1.0, 0.0
    moved = float(decoded.onset.max(initial=0.0)) - last
    return 1 + moved / last, max(0.0, abs(moved) - tolerance - 1e-9) / last
