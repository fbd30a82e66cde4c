"""What a round trip through the tokenizer costs, measured on the notes themselves.

Each note of the music (with its pedal treated as the params say) is paired with the decoded note of the
same pitch that is nearest in time, where each is the other's nearest. What finds no partner was lost or
added. Nothing of the tokenizer's own grid is used for the pairing, so that a drift shows.
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
"""Seconds between the time axes of two pitches, when all are laid on one."""
FARTHEST_SECONDS = 1.0
"""Notes that are farther apart are no pair."""


def fidelity(tokenizer: Tokenizer, music: Iterable[Notes]) -> dict[str, Any]:
    """Measures decode(encode(x)) against x over some music.

    Returns:
        performances, notes, notes_lost, notes_added; onset_error_ms, duration_error_ms and velocity_error,
        each with mean (signed), rms and max (absolute); durations_clipped: notes longer than the longest bin
        allows, which duration_error_ms leaves to clipped_error_ms; end_ratio: last decoded onset / last true
        onset of the performance where it is farthest from 1; end_drift: the largest part of a performance by
        which its last onset moved, beyond half an onset step; pedal_events and pedal_events_lost (a press and
        a release are two; under `extend` and `ignore` all are lost as events); tokens_per_note (of the notes
        in the MIDI, without BOS and EOS); vocabulary_used: share of the ids that occur.
    """
    onset, duration, velocity, clipped = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)], [np.zeros(0, bool)]
    kinds = ("performances", "notes", "lost", "added", "clipped", "pedal", "pedal_decoded", "tokens")
    counts = dict.fromkeys(kinds, 0)
    used_ids = np.zeros(tokenizer.vocab_size, bool)
    ratios, drifts = [1.0], [0.0]
    longest = tokenizer.vocabulary.duration_seconds[-1] + tokenizer.vocabulary.duration_step_seconds[-1] / 2
    for raw in music:
        wanted = apply_sustain(raw) if tokenizer.vocabulary.pedal == "extend" else raw
        ids = tokenizer.encode(raw)
        decoded = tokenizer.decode(ids)
        used_ids[ids] = True
        ours, theirs = paired(wanted, decoded)
        onset.append(decoded.onset[theirs] - wanted.onset[ours])
        duration.append(decoded.duration[theirs] - wanted.duration[ours])
        velocity.append(decoded.velocity[theirs].astype(float) - wanted.velocity[ours])
        clipped.append(wanted.duration[ours] > longest)
        counts["performances"] += 1
        counts["notes"] += len(raw)
        counts["tokens"] += len(ids)
        counts["lost"] += len(wanted) - len(ours)
        counts["added"] += len(decoded) - len(theirs)
        counts["clipped"] += int(np.count_nonzero(wanted.duration > longest))
        counts["pedal"] += 2 * len(raw.pedal)
        counts["pedal_decoded"] += 2 * len(decoded.pedal)
        ratio, drift = _end(wanted, decoded, 0.5 / tokenizer.vocabulary.positions_per_second)
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


def paired(one: Notes, other: Notes) -> tuple[Indices, Indices]:
    """Indices (M,) into each of two, of the notes that are each other's nearest of the same pitch."""
    if not len(one) or not len(other):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    there, gap = _nearest(_line(one), _line(other))
    back, _ = _nearest(_line(other), _line(one))
    mutual = (back[there] == np.arange(len(one))) & (gap <= FARTHEST_SECONDS)
    return np.flatnonzero(mutual), there[mutual]


def check(by_split: Mapping[str, Mapping[str, Any]], params: TokenizerParams) -> None:
    """Refuses a tokenizer that loses too much.

    Args:
        by_split: split -> what `fidelity` measured on it.
        params: the tokenizer section, with the limits.

    Raises:
        UserError: one fault for each limit of the params that is exceeded on a split.
    """
    faults = []
    for split, measured in by_split.items():
        rms, drift = measured["onset_error_ms"]["rms"], measured["end_drift"]
        if rms > params.max_onset_rms_ms:
            rule = f"onsets must come back within {params.max_onset_rms_ms:g} ms RMS"
            got, remedy = f"{rms:.3g} ms on {split}", "raise tokenizer.positions_per_beat"
            faults.append(Fault("tokenizer.max_onset_rms_ms", rule, got, remedy))
        if drift > params.max_end_ratio_error:
            rule = f"performances must keep their length within a share of {params.max_end_ratio_error:g}"
            faults.append(Fault("tokenizer.max_end_ratio_error", rule, f"{drift:.3g} on {split}"))
    if faults:
        raise UserError(*faults)


def _line(notes: Notes) -> Floats:
    """(N,) one axis for all: the onset, on an interval of its own for each pitch."""
    return np.asarray(notes.onset + PITCH_STRIDE * notes.pitch.astype(np.float64), np.float64)


def _nearest(points: Floats, among: Floats) -> tuple[Indices, Floats]:
    """(N,) index of, and distance to, the nearest of `among` (M,) for each point (N,); the earlier of two
    as near.
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


def _end(true: Notes, decoded: Notes, tolerance: float) -> tuple[float, float]:
    """The ratio of the last onsets, and the share of the length that they differ by beyond `tolerance`
    (s).
    """
    last = float(true.onset.max(initial=0.0))
    if last == 0.0:
        return 1.0, 0.0
    moved = float(decoded.onset.max(initial=0.0)) - last
    return 1 + moved / last, max(0.0, abs(moved) - tolerance - 1e-9) / last
