"""The page of a listening test: one file that plays trials, keeps the answers and loads nothing.

The sounds of both sides of a trial are equally long, fade out alike, and have no picture: who listens is not
to see how dense the music is. The page tells nothing of where a sound is from but in a hidden form, which is
read again when the answers are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from coma_gen.audio.synth import sound
from coma_gen.audio.writers import small_ogg
from coma_gen.midi.notes import Notes
from coma_gen.report.gallery import data_uri
from coma_gen.report.page import HERE, SCRIPT, STYLE, render_page

SAMPLE_RATE = 16_000
FADE_SECONDS = 1.5
LEAST_PLAYED = 5.0
"""Seconds of each continuation that must have been played before a trial can be answered."""


@dataclass(frozen=True)
class PlayedTrial:
    """What the page plays.

    Attributes:
        sounds: of sides A and B, as Ogg Vorbis.
        splice: seconds at which the prompt's last note begins.
        seconds: of both sounds.
    """

    sounds: tuple[bytes, bytes]
    splice: float
    seconds: float


def hear_trial(prompt: Notes, continuations: tuple[Notes, Notes], *, seconds: float) -> PlayedTrial:
    """Plays a prompt with each of two continuations.

    Args:
        prompt: from 0 s on.
        continuations: their times counted from the prompt's last onset.
        seconds: of each that is heard.
    """
    splice = prompt.end_of_onsets
    first, second = (_ogg(prompt.joined(new.shifted(splice)), splice + seconds) for new in continuations)
    return PlayedTrial((first, second), splice, splice + seconds)


def _ogg(notes: Notes, seconds: float) -> bytes:
    """The first seconds of some music, which fades out, as a sound file."""
    samples = round(seconds * SAMPLE_RATE)
    signal = np.zeros((samples, 1))
    played = sound(notes, sample_rate=SAMPLE_RATE, channels=1)[:samples]
    signal[: len(played)] = played
    fade = min(samples, int(FADE_SECONDS * SAMPLE_RATE))
    signal[-fade:] *= np.linspace(1, 0, fade)[:, None]
    return small_ogg(np.rint(signal).astype(np.int16), sample_rate=SAMPLE_RATE)


def listening_page(trials: Sequence[PlayedTrial], *, sealed: str, digest: str, kind: str) -> str:
    """The page as HTML.

    Args:
        trials: in their order.
        sealed: the hidden form of the sources.
        digest: names the page in the answers.
        kind: what the answers say that they are.
    """
    sides = [
        [
            {"side": side, "sound": data_uri("audio/ogg", content), "trial": trial}
            for side, content in zip("AB", trial.sounds, strict=True)
        ]
        for trial in tqdm(trials, desc="page", disable=None)
    ]
    return render_page(
        "listen.html.j2",
        sheets=(STYLE, HERE / "listen.css"),
        has_script=True,
        scripts=(SCRIPT, HERE / "listen.js"),
        trials=sides,
        sealed=sealed,
        page=digest,
        kind=kind,
        least=min([LEAST_PLAYED, *(0.5 * (trial.seconds - trial.splice) for trial in trials)]),
    )
