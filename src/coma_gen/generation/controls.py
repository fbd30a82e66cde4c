"""Musical wishes: denser, louder, higher, in a key.

A model that was trained with the condition of a wish is told it (`generation.told`). Any other is pulled:
each wish is a number for every token, added to the model's logits before a token is drawn. So the grammar and
the filters hold as they do without, and the model still decides among what is pulled alike. A learned token
is pulled as its parts together. benchmarks/controls.py measures the effects of both.
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

STRONGEST = 3.0
AS_THE_PROMPT = "prompt"
TARGETS = {"density": (0, 100), "loudness": (1, 127), "register": (0, 127), "polyphony": (0, 100)}
"""What may be asked for: notes a second, mean velocity, mean pitch, notes that sound at once."""
OUTSIDE_OF_THE_KEY = -3.0
"""The pull on pitches that are not of the scale: they are e**3 = 20 times less likely."""
_LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}
"""Steps above the tonic; minor with both of its sevenths."""
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""How well each step fits a key (Krumhansl and Kessler 1982)."""


@dataclass(frozen=True)
class Controls:
    """What is wished for; 0 or None asks for nothing.

    Attributes:
        density: above 0 for more notes a second, below for fewer; 1 is a plain wish.
        loudness: above 0 for louder notes.
        register: above 0 for higher notes.
        key: such as "C major" or "f# minor", or "prompt" for that of the prompt.
        polyphony: above 0 for more notes at once; only for models that were trained with this condition.
        target: values to have, such as "density=5,loudness=60"; only for models with these conditions.
        follow: whether the new music of a model with conditions keeps to the prompt's values, but for what is
            wished for.
    """

    density: float = 0.0
    loudness: float = 0.0
    register: float = 0.0
    key: str | None = None
    polyphony: float = 0.0
    target: str | None = None
    follow: bool = True

    def faults(self) -> list[Fault]:
        """What is out of range."""
        rule = f"must be between -{STRONGEST:g} and {STRONGEST:g}"
        found = [
            Fault(name, rule, str(getattr(self, name)))
            for name in CONDITIONS
            if not abs(getattr(self, name)) <= STRONGEST
        ]
        targets = _parsed_targets(self.target or "")
        if targets is None:
            ranges = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in TARGETS.items())
            rule = f'must be such as "density=5,loudness=60", each once, of {ranges}'
            found.append(Fault("target", rule, repr(self.target)))
        found += [
            Fault(name, "must not be wished for beside a target of it", str(getattr(self, name)))
            for name in targets or ()
            if getattr(self, name)
        ]
        if self.key not in (None, AS_THE_PROMPT) and _parsed(self.key or "") is None:
            found.append(Fault("key", 'must be such as "C major" or "f# minor", or "prompt"', repr(self.key)))
        return found

    @property
    def targets(self) -> dict[str, float]:
        """The values to have, by condition."""
        return _parsed_targets(self.target or "") or {}

    def unmet(self, conditions: Collection[str]) -> list[Fault]:
        """What a model with these conditions cannot be asked for."""
        asked = [("target", name) for name in self.targets]
        asked += [("polyphony", "polyphony")] if self.polyphony else []
        return [
            Fault(
                setting,
                f"needs a model that was trained with the condition {name}",
                f"one with {', '.join(conditions) or 'none'}",
                f"train with model.conditions: [{', '.join(CONDITIONS)}]",
            )
            for setting, name in asked
            if name not in conditions
        ]

    def pull(
        self, vocabulary: Vocabulary, prompt: Notes | None, *, told: Collection[str] = ()
    ) -> Reals | None:
        """(V,) what is added to the logits; None for nothing.

        Args:
            vocabulary: of the model.
            prompt: what is continued, for the key.
            told: conditions of the model, which it is told instead.
        """
        density, loudness, register = (
            0.0 if name in told else getattr(self, name) for name in ("density", "loudness", "register")
        )
        base = np.zeros(len(vocabulary.base))
        velocity, pitch, position = (vocabulary.span(kind) for kind in ("Velocity", "Pitch", "Position"))
        pitches = np.arange(len(pitch)) + vocabulary.pitch_range[0]
        base[velocity.start : velocity.stop] += loudness * (np.array(vocabulary.velocities) - 64) / 32
        base[pitch.start : pitch.stop] += register * (pitches - 64) / 20
        base[pitch.start : pitch.stop] += 0.55 * density
        base[position.start : position.stop] -= 2.2 * density * np.linspace(0, 1, len(position))
        base[vocabulary.span("Bar").start] -= 2.2 * density
        if (scale := self._scale(prompt)) is not None:
            base[pitch.start : pitch.stop] += np.where(np.isin(pitches % 12, scale), 0.0, OUTSIDE_OF_THE_KEY)
        if not base.any():
            return None
        return np.array([base[list(parts)].sum() for parts in vocabulary.pieces])

    def _scale(self, prompt: Notes | None) -> list[int] | None:
        """The pitch classes of the key."""
        if self.key == AS_THE_PROMPT:
            tonic, mode = key_of(prompt) if prompt is not None and len(prompt) else (0, "")
        else:
            tonic, mode = _parsed(self.key or "") or (0, "")
        return [(tonic + step) % 12 for step in _SCALES[mode]] if mode else None


def key_of(notes: Notes) -> tuple[int, str]:
    """The key that fits some music best: its tonic (0 is C) and mode, by the correlation of profiles."""
    weight_of = np.bincount(notes.pitch % 12, weights=np.minimum(notes.duration, 2.0) + 0.05, minlength=12)
    fits = {
        (tonic, mode): float(np.dot(np.roll(np.array(profile) - np.mean(profile), tonic), weight_of))
        / float(np.std(profile))
        for mode, profile in _PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def _parsed(key: str) -> tuple[int, str] | None:
    """Tonic and mode of a key's name; None for none."""
    found = re.fullmatch(r"([a-g])\s*(#|b|♯|♭|)\s*(major|minor)", key.strip().casefold())
    if found is None:
        return None
    shift = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}[found[2]]
    return (_LETTERS[found[1]] + shift) % 12, found[3]


def _parsed_targets(text: str) -> dict[str, float] | None:
    """The values that a text such as "density=5,loudness=60" names; None for another text."""
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
