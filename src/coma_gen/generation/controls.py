"""Controls of generated music: density, loudness, register, polyphony and key.

A model that was trained with the condition of a control is conditioned on it
(`generation.condition_sequence`). Otherwise the control becomes a logit bias: one number per token, added
before sampling. The grammar and the sampling filters apply unchanged, and the model still decides among
tokens with equal bias. The bias of a byte-pair token is the sum over its base tokens. benchmarks/controls.py
measures the effect of both.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import CONDITIONS
from coma_gen.core.errors import Fault
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.vocabulary import Vocabulary

Reals = npt.NDArray[np.float64]

MAX_STRENGTH = 3.0
PROMPT_KEY = "prompt"
TARGETS = {"density": (0, 100), "loudness": (1, 127), "register": (0, 127), "polyphony": (0, 100)}
"""Ranges of the targets: notes per second, mean velocity, mean pitch, simultaneous notes."""
OUT_OF_KEY_BIAS = -3.0
"""Logit bias of pitches outside the scale: they become e**3 = 20 times less likely."""
_LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}
"""Semitones above the tonic; minor includes both sevenths."""
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""Key profiles: how well each pitch class fits a key (Krumhansl and Kessler 1982)."""


@dataclass(frozen=True)
class Controls:
    """Requested properties of the new music; 0 and None leave a property to the model.

    Attributes:
        density: Above 0 for more notes per second, below 0 for fewer; 1 is a moderate change.
        loudness: Above 0 for louder notes.
        register: Above 0 for higher notes.
        key: A key such as "C major" or "f# minor", or "prompt" for the key of the prompt.
        polyphony: Above 0 for more simultaneous notes; requires a model trained with this condition.
        target: Absolute values, such as "density=5,loudness=60"; requires a model with these conditions.
        follow: Whether a model with conditions keeps the prompt's values of all conditions that no other
            control changes.
    """

    density: float = 0.0
    loudness: float = 0.0
    register: float = 0.0
    key: str | None = None
    polyphony: float = 0.0
    target: str | None = None
    follow: bool = True

    def faults(self) -> list[Fault]:
        """Lists the controls that are out of range."""
        rule = f"must be between -{MAX_STRENGTH:g} and {MAX_STRENGTH:g}"
        found = [
            Fault(name, rule, str(getattr(self, name)))
            for name in CONDITIONS
            if not abs(getattr(self, name)) <= MAX_STRENGTH
        ]
        targets = _parse_targets(self.target or "")
        if targets is None:
            ranges = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in TARGETS.items())
            rule = f'must be such as "density=5,loudness=60", each once, of {ranges}'
            found.append(Fault("target", rule, repr(self.target)))
        found += [
            Fault(name, "must not be combined with a target for it", str(getattr(self, name)))
            for name in targets or ()
            if getattr(self, name)
        ]
        if self.key not in (None, PROMPT_KEY) and _parse_key(self.key or "") is None:
            found.append(Fault("key", 'must be such as "C major" or "f# minor", or "prompt"', repr(self.key)))
        return found

    @property
    def targets(self) -> dict[str, float]:
        """The target values, by condition."""
        return _parse_targets(self.target or "") or {}

    def unsupported(self, conditions: Collection[str]) -> list[Fault]:
        """Lists the controls that need a condition which the model was trained without."""
        required = [("target", name) for name in self.targets]
        required += [("polyphony", "polyphony")] if self.polyphony else []
        return [
            Fault(
                setting,
                f"needs a model that was trained with the condition {name}",
                f"one with {', '.join(conditions) or 'none'}",
                f"train with model.conditions: [{', '.join(CONDITIONS)}]",
            )
            for setting, name in required
            if name not in conditions
        ]

    def logit_bias(
        self, vocabulary: Vocabulary, prompt: Notes | None, *, conditions: Collection[str] = ()
    ) -> Reals | None:
        """Computes the bias (V,) that is added to the logits; None where it is zero.

        Args:
            vocabulary: The model's vocabulary.
            prompt: The prompt, for its key.
            conditions: Conditions of the model; their controls need no bias.
        """
        density, loudness, register = (
            0.0 if name in conditions else getattr(self, name) for name in ("density", "loudness", "register")
        )
        base = np.zeros(len(vocabulary.base))
        velocity, pitch, position = (vocabulary.span(kind) for kind in ("Velocity", "Pitch", "Position"))
        pitches = np.arange(len(pitch)) + vocabulary.pitch_range[0]
        base[velocity.start : velocity.stop] += loudness * (np.array(vocabulary.velocities) - 64) / 32
        base[pitch.start : pitch.stop] += register * (pitches - 64) / 20
        base[pitch.start : pitch.stop] += 0.55 * density
        base[position.start : position.stop] -= 2.2 * density * np.linspace(0, 1, len(position))
        base[vocabulary.span("Bar").start] -= 2.2 * density
        if (scale := self._find_scale(prompt)) is not None:
            base[pitch.start : pitch.stop] += np.where(np.isin(pitches % 12, scale), 0.0, OUT_OF_KEY_BIAS)
        if not base.any():
            return None
        return np.array([base[list(parts)].sum() for parts in vocabulary.pieces])

    def _find_scale(self, prompt: Notes | None) -> list[int] | None:
        """Returns the pitch classes of the key; None without one."""
        if self.key == PROMPT_KEY:
            tonic, mode = key_of(prompt) if prompt is not None and len(prompt) else (0, "")
        else:
            tonic, mode = _parse_key(self.key or "") or (0, "")
        return [(tonic + step) % 12 for step in _SCALES[mode]] if mode else None


def key_of(notes: Notes) -> tuple[int, str]:
    """Estimates the key by correlation with key profiles: its tonic (0 is C) and mode."""
    weight_of = np.bincount(notes.pitch % 12, weights=np.minimum(notes.duration, 2.0) + 0.05, minlength=12)
    fits = {
        (tonic, mode): float(np.dot(np.roll(np.array(profile) - np.mean(profile), tonic), weight_of))
        / float(np.std(profile))
        for mode, profile in _PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def _parse_key(key: str) -> tuple[int, str] | None:
    """Parses the name of a key into tonic and mode; None for any other text."""
    found = re.fullmatch(r"([a-g])\s*(#|b|♯|♭|)\s*(major|minor)", key.strip().casefold())
    if found is None:
        return None
    shift = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}[found[2]]
    return (_LETTERS[found[1]] + shift) % 12, found[3]


def _parse_targets(text: str) -> dict[str, float] | None:
    """Parses text such as "density=5,loudness=60"; None for any other text."""
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in TARGETS or name in found or not re.fullmatch(r"\d{1,4}(\.\d{0,9})?", value):
            return None
        low, high = TARGETS[name]
        if not low <= float(value) <= high:
            return None
        found[name] = float(value)
    return found
