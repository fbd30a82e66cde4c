"""Tokenizer between notes and ids, with the vocabulary and BPE of miditok's REMI (Huang and Yang 2020).

Time is a constant 120 bpm in 4/4. Tokens are bars, positions, pitches, velocities, durations and optionally
the pedal. Rest and tempo tokens of miditok 3.1 drift (decoded pieces are 2% slower), and chords, programs and
drums are useless for one piano. miditok builds the vocabulary and trains BPE; codec.py encodes and decodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from coma_gen.config.rules import broken_rules
from coma_gen.config.schema import TokenizerParams
from coma_gen.core.artifact import Manifest, verify_artifact, write_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json, write_atomic
from coma_gen.midi.io import SECONDS_PER_BAR, SECONDS_PER_BEAT
from coma_gen.midi.notes import Notes
from coma_gen.midi.sustain import apply_sustain
from coma_gen.tokenizer.bpe import BytePairs, bar_words
from coma_gen.tokenizer.codec import decode_grid, encode_grid
from coma_gen.tokenizer.grid import Grid, quantize, to_notes
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

if TYPE_CHECKING:
    from miditok import REMI

KIND = "tokenizer"
MIDITOK_FILE = "tokenizer.json"
_VERSIONS = ("miditok_version", "symusic_version", "hf_tokenizers_version")


class Tokenizer:
    """Encodes notes to ids and decodes ids to notes.

    Attributes:
        vocabulary: Meaning of every id.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        miditok_json: str,
        byte_pairs: BytePairs | None = None,
        manifest: Manifest | None = None,
        bpe_trainer: tuple[REMI, int] | None = None,
    ) -> None:
        """Use `build` or `load`; `bpe_trainer` is miditok's tokenizer and the vocabulary size to train."""
        self.vocabulary = vocabulary
        self._miditok_json = miditok_json
        self._bpe_trainer = bpe_trainer
        self._byte_pairs = byte_pairs
        self._manifest = manifest

    @classmethod
    def build(cls, params: TokenizerParams) -> Tokenizer:
        """Builds the tokenizer of some params, before BPE training.

        Raises:
            UserError: If the params contradict each other; each fault names its key.
        """
        remi = _build_remi(params)
        vocabulary = _build_vocabulary(remi, params)
        bpe_trainer = None if params.vocab_size is None else (remi, params.vocab_size)
        return cls(vocabulary, miditok_json=_to_json(remi), bpe_trainer=bpe_trainer)

    def fit(self, music: Iterable[Notes]) -> None:
        """Trains BPE on music if `vocab_size` is set; does nothing otherwise.

        Raises:
            UserError: If there is no music.
        """
        if self._bpe_trainer is None:
            return
        remi, size = self._bpe_trainer
        bar = self.vocabulary.span("Bar").start
        words = [bar_words(self._base_ids(self.grid(notes)), bar) for notes in music]
        if not any(words):
            raise UserError(
                Fault("tokenizer.vocab_size", "byte pairs need music to learn from", "a silent train split")
            )
        remi.train(vocab_size=size, model="BPE", iterator=words)
        self._byte_pairs = BytePairs(remi._model.to_str())
        self._miditok_json = _to_json(remi)
        self.vocabulary = replace(self.vocabulary, pieces=self._byte_pairs.pieces())
        self._bpe_trainer, self._manifest = None, None

    def grid(self, notes: Notes) -> Grid:
        """Quantizes notes, with the pedal handled according to the params."""
        return quantize(apply_sustain(notes) if self.vocabulary.pedal == "extend" else notes, self.vocabulary)

    def encode(self, notes: Notes) -> Ids:
        """Encodes notes to ids (T,), without BOS and EOS."""
        return self.encode_grid(self.grid(notes))

    def encode_grid(self, grid: Grid) -> Ids:
        """Encodes a grid to ids (T,), without BOS and EOS."""
        base = self._base_ids(grid)
        if self._byte_pairs is None:
            return base
        return self._byte_pairs.apply(base, self.vocabulary.span("Bar").start)

    def decode(self, ids: npt.ArrayLike) -> Notes:
        """Decodes ids (T,) to notes; special tokens and malformed sequences are ignored."""
        return to_notes(decode_grid(self.base_ids(ids), self.vocabulary), self.vocabulary)

    def base_ids(self, ids: npt.ArrayLike) -> Ids:
        """Expands ids (T,) to base ids (T',)."""
        return self.vocabulary.expanded(ids)

    def _base_ids(self, grid: Grid) -> Ids:
        return encode_grid(grid, self.vocabulary)

    @property
    def vocab_size(self) -> int:
        """Number of base, special and BPE ids."""
        return len(self.vocabulary)

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self.vocabulary.pad_id

    @property
    def bos_id(self) -> int:
        """Id of the token at the beginning of a performance."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int:
        """Id of the token at the end of a performance."""
        return self.vocabulary.eos_id

    @property
    def token_types(self) -> list[tuple[str, ...]]:
        """(V,) types of the base tokens of each id."""
        return self.vocabulary.token_types

    @property
    def token_values(self) -> list[tuple[str, ...]]:
        """(V,) values of the base tokens of each id."""
        return self.vocabulary.token_values

    @property
    def steps(self) -> dict[str, Any]:
        """Resolution of the grid, see `Vocabulary.steps`."""
        return self.vocabulary.steps

    def shift_table(self, semitones: int, velocity_bins: int) -> Ids:
        """Returns a (V,) shift table, see `Vocabulary.shift_table`."""
        return self.vocabulary.shift_table(semitones, velocity_bins)

    def common_resolution_bits(self, notes: Notes) -> float:
        """Returns the bits to add to the code length of some music to make it comparable across grids.

        The sum over its notes of log2(onset step / 10 ms) + log2(duration step / 10 ms) + log2(velocity
        step / 4), with the duration step of the note's own bin.
        """
        return self.vocabulary.total_resolution_bits(self._base_ids(self.grid(notes)))

    @property
    def digest(self) -> str:
        """Digest of the artifact that this tokenizer was loaded from or saved to.

        Raises:
            ValueError: If it has not been saved.
        """
        if self._manifest is None:
            raise ValueError("a tokenizer has a digest once it is saved")
        return self._manifest.digest

    def save(self, folder: Path, *, made_from: Mapping[str, str] | None = None) -> Manifest:
        """Writes the tokenizer as an artifact: miditok's file, vocabulary.json and the manifest."""
        write_atomic(folder / MIDITOK_FILE, self._miditok_json)
        self.vocabulary.save(folder)
        settings = {"vocab_size": self.vocab_size, "base_vocab_size": len(self.vocabulary.base)}
        settings |= {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        self._manifest = write_manifest(folder, kind=KIND, made_from=made_from or {}, settings=settings)
        return self._manifest

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Loads a tokenizer.

        Raises:
            UserError: If the folder is not an intact tokenizer artifact.
        """
        manifest = verify_artifact(folder, kind=KIND)
        model = read_json(folder / MIDITOK_FILE).get("_model")
        return cls(
            Vocabulary.load(folder),
            miditok_json=(folder / MIDITOK_FILE).read_text(encoding="utf-8"),
            byte_pairs=BytePairs(model) if model else None,
            manifest=manifest,
        )


def _build_remi(params: TokenizerParams) -> REMI:
    """Builds miditok's REMI without the features that a single piano at constant tempo does not need."""
    from miditok import REMI, TokenizerConfig  # takes 0.3 s and is not needed to load a tokenizer

    faults = broken_rules({"tokenizer": params})
    if faults:
        raise UserError(*faults)
    last = params.duration_bins[-1][1]
    resolutions = {(start, end): steps for start, end, steps in params.duration_bins}
    # miditok derives its onset grid from the finest duration resolution; an empty range after the last one
    # sets the onset resolution.
    resolutions[last, last] = params.positions_per_beat
    config = TokenizerConfig(
        pitch_range=params.pitch_range,
        beat_res=resolutions,
        num_velocities=params.velocities,
        special_tokens=["PAD", "BOS", "EOS"],
        encode_ids_split="bar",
        use_velocities=True,
        use_sustain_pedals=params.pedal == "tokens",
        sustain_pedal_duration=False,
        use_pitchdrum_tokens=False,
        use_chords=False,
        use_rests=False,
        use_tempos=False,
        use_time_signatures=False,
        use_programs=False,
        use_pitch_intervals=False,
        use_pitch_bends=False,
    )
    return REMI(config)


def _build_vocabulary(remi: REMI, params: TokenizerParams) -> Vocabulary:
    base = tuple(sorted(remi.vocab, key=remi.vocab.__getitem__))
    ticks = params.positions_per_beat
    durations = tuple(int(value) for value in remi._tpb_to_time_array[ticks])
    return Vocabulary(
        base=base,
        pieces=tuple((index,) for index in range(len(base))),
        positions_per_second=round(ticks / SECONDS_PER_BEAT),
        positions_per_bar=round(ticks * SECONDS_PER_BAR / SECONDS_PER_BEAT),
        durations=durations,
        velocities=tuple(int(value) for value in remi.velocities),
        pedal=params.pedal,
    )


def _to_json(remi: REMI) -> str:
    """Serializes miditok's tokenizer without package versions, so that equal music gives equal bytes."""
    content = {name: value for name, value in remi.to_dict().items() if name not in _VERSIONS}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
