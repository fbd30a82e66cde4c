"""The page of a listening test: a single offline HTML file that plays trials and collects the answers.

Both sounds of a trial have the same length and fade-out and no piano roll, so that listeners cannot see how
dense the music is. The page reveals the source of a sound only in sealed form, which is decoded when the
answers are counted.
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
MIN_PLAYED_SECONDS = 5.0
"""Seconds of each continuation that must be played before a trial can be answered, at most half of it."""


@dataclass(frozen=True)
class TrialAudio:
    """The audio of one trial.

    Attributes:
        sounds: Sounds of sides A and B, as Ogg Vorbis.
        splice: Onset of the prompt's last note in seconds.
        seconds: Length of each sound.
    """

    sounds: tuple[bytes, bytes]
    splice: float
    seconds: float


def render_trial(prompt: Notes, continuations: tuple[Notes, Notes], *, seconds: float) -> TrialAudio:
    """Renders a prompt with each of two continuations.

    Args:
        prompt: Prompt, starting at 0 s.
        continuations: Continuations, with times relative to the prompt's last onset.
        seconds: Seconds of each continuation to include.
    """
    splice = prompt.end_of_onsets
    first, second = (_encode(prompt.joined(new.shifted(splice)), splice + seconds) for new in continuations)
    return TrialAudio((first, second), splice, splice + seconds)


def _encode(notes: Notes, seconds: float) -> bytes:
    """Renders the first seconds of some music with a fade-out as Ogg Vorbis."""
    samples = round(seconds * SAMPLE_RATE)
    signal = np.zeros((samples, 1))
    played = sound(notes, sample_rate=SAMPLE_RATE, channels=1)[:samples]
    signal[: len(played)] = played
    fade = min(samples, int(FADE_SECONDS * SAMPLE_RATE))
    signal[-fade:] *= np.linspace(1, 0, fade)[:, None]
    return small_ogg(np.rint(signal).astype(np.int16), sample_rate=SAMPLE_RATE)


def listening_page(trials: Sequence[TrialAudio], *, sealed: str, digest: str, kind: str) -> str:
    """Renders the page as HTML.

    Args:
        trials: Trials in order.
        sealed: The sources of all sounds in sealed form.
        digest: Identifier of the page in the answers file.
        kind: Type identifier of the answers file.
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
        least=min([MIN_PLAYED_SECONDS, *(0.5 * (trial.seconds - trial.splice) for trial in trials)]),
    )
