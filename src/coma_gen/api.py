"""The Python API: load a trained model, generate music with it, and score MIDI files.

    from coma_gen import load_model

    model = load_model("models:/coma-gen@champion")
    piece = model.generate(prompt="my.mid", seconds=30, seed=1)
    piece.save("out.mid")
    print(model.score("my.mid").bits_per_note_10ms)

This module imports neither numpy nor torch: both choose their CPU kernels when they are imported, and
`load_model` pins those kernels first. `load_model` documents when a piece has the same bytes as that of
`coma-gen generate`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, overload

from coma_gen.core import seeding
from coma_gen.core.errors import Fault, UserError
from coma_gen.generated_piece import GeneratedPiece
from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from typing import TypeAlias, Unpack

    from coma_gen.evaluation.midi_score import Score
    from coma_gen.generation.continuation import Continuation
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.generation.settings import GenerateSettings
    from coma_gen.midi.notes import Notes
    from coma_gen.midi.prompt import Prompt
    from coma_gen.tokenizer.remi import Tokenizer

    Source: TypeAlias = str | os.PathLike[str] | bytes | Notes

MAX_THREADS = 1024


class MusicModel:
    """A trained model with its tokenizer. Use `load_model`.

    Attributes:
        is_pinned: Whether numpy and torch are pinned to one instruction set in this process, so that a seed
            gives the bytes of `coma-gen generate` on every machine.
    """

    def __init__(self, composer: MusicGenerator, *, threads: int) -> None:
        self._composer, self._threads = composer, threads
        self.is_pinned = seeding.is_pinned()

    def __repr__(self) -> str:
        return f"<MusicModel {self.digest[:12]}: {self.num_parameters:,} parameters>"

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return self._composer.tokenizer

    @property
    def digest(self) -> str:
        """SHA-256 of the model's manifest, which names its weights."""
        return self._composer.loaded.manifest.digest

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the model."""
        return sum(parameter.numel() for parameter in self._composer.loaded.model.parameters())

    @overload
    def generate(
        self, prompt: Source | None = None, *, num: None = None, **settings: Unpack[GenerateSettings]
    ) -> GeneratedPiece: ...

    @overload
    def generate(
        self, prompt: Source | None = None, *, num: int, **settings: Unpack[GenerateSettings]
    ) -> list[GeneratedPiece]: ...

    def generate(
        self, prompt: Source | None = None, *, num: int | None = None, **settings: Unpack[GenerateSettings]
    ) -> GeneratedPiece | list[GeneratedPiece]:
        """Continues a prompt, or generates music without one.

        Args:
            prompt: MIDI file (path, or content as bytes), or `Notes`; None for music without a prompt.
            num: Number of pieces, returned as a list. None returns one piece by itself. Piece k does not
                depend on `num`.
            **settings: See `coma_gen.generation.settings.GenerateSettings`.

        Raises:
            UserError: The prompt cannot be read or has no note in the vocabulary, or a setting has the wrong
                type or is out of range; every such setting is named.
            TypeError: A setting is unknown.
        """
        from coma_gen.generation.generate import generate_request
        from coma_gen.generation.settings import build_request
        from coma_gen.model.device import deterministic

        request = build_request({"num": num, **settings}, has_prompt=prompt is not None)
        read = None if prompt is None else self._read_prompt(prompt, request)
        with deterministic(self._threads):
            generated = generate_request(self._composer, read, request)
        pieces = [self._finish(piece, read, number, request) for number, piece in enumerate(generated, 1)]
        return pieces[0] if num is None else pieces

    def _read_prompt(self, source: Source, request: Request) -> Prompt:
        from coma_gen.midi.prompt import read_prompt

        content, name = _read_midi(source, "prompt")
        return read_prompt(content, name=name, open_pedal=self._composer.writes_pedal, **request.passage)

    def _finish(
        self, piece: Continuation, prompt: Prompt | None, number: int, request: Request
    ) -> GeneratedPiece:
        """Converts a continuation to a `GeneratedPiece` with the title that `coma-gen generate` uses."""
        from coma_gen.core.io import shown_name
        from coma_gen.generation.generate import piece_midi

        title = "Unprompted music" if prompt is None else f"{shown_name(Path(prompt.name))}, continued"
        left_out = {"new_notes_on_held_keys": piece.left_out}
        if prompt is not None:
            left_out |= {"drum_notes": prompt.drum_notes, "notes_without_an_end": prompt.endless_notes}
            left_out["notes_outside_of_pitches"] = self.tokenizer.vocabulary.count_outside(prompt.notes.pitch)
        return GeneratedPiece(
            notes=piece.new if request.only_new else piece.notes,
            new_notes=piece.new if request.only_new else piece.added,
            prompt_seconds=None if request.only_new else piece.prompt_end,
            midi=piece_midi(piece, prompt, request),
            title=f"{title} ({number} of {request.num})" if request.num > 1 else title,
            left_out=left_out,
        )

    def express(
        self,
        source: Source,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float | None = 0.95,
        timing: float = 25.0,
        keep_lengths: bool = False,
    ) -> GeneratedPiece:
        """Performs a mechanical MIDI file: samples velocities, lengths and small delays; pitches are
        unchanged.

        Args:
            source: MIDI file (path, or content as bytes), or `Notes`.
            seed: Seed of the random numbers.
            temperature: Lower is more even; 0 takes the most likely token.
            top_p: Sample from the most likely tokens that reach this total probability; None for all.
            timing: Maximum shift of an onset in milliseconds, rounded down to steps of the model's grid; 0
                for none.
            keep_lengths: Whether to keep the written note lengths.

        Raises:
            UserError: The file cannot be read or has no note in the vocabulary, or a setting is out of range.
        """
        from coma_gen.core.io import shown_name
        from coma_gen.generation.express import express_midi
        from coma_gen.generation.touch import TouchRequest
        from coma_gen.model.device import deterministic

        request = TouchRequest(seed, 1, temperature, top_p, timing, keep_lengths)
        if faults := request.faults():
            raise UserError(*faults)
        content, name = _read_midi(source, "MIDI data")
        with deterministic(self._threads):
            (result,) = express_midi(self._composer, content, name=name, request=request)
        return GeneratedPiece(
            notes=result.notes,
            new_notes=result.notes,
            prompt_seconds=None,
            midi=result.midi,
            title=f"{shown_name(Path(name))}, expressed",
            left_out={"notes_outside_of_pitches": result.unchanged, "notes_without_an_end": result.endless},
        )

    def score(self, source: Source) -> Score:
        """Scores a piece as the evaluate stage does.

        Args:
            source: MIDI file (path, or content as bytes), or `Notes`.

        Raises:
            UserError: The file cannot be read, or has no notes other than drums.
        """
        from coma_gen.evaluation.midi_score import score_midi
        from coma_gen.model.device import deterministic

        content, name = _read_midi(source, "MIDI data")
        with deterministic(self._threads):
            return score_midi(self._composer, content, name=name)


def load_model(
    model: str | os.PathLike[str] | None = None, *, device: str = "cpu", threads: int = 1, pin: bool = True
) -> MusicModel:
    """Loads a trained model.

    In a process that has not imported numpy yet, this first sets environment variables that pin numpy and
    torch to one instruction set (AVX2 on x86) and to `threads` threads. `generate` then gives the same bytes
    as `coma-gen generate` with the same model, prompt, settings and versions. If numpy was imported before,
    as in most notebooks, it has already chosen its kernels: results are reproducible on that machine, but may
    differ from those of the command line and of other machines. `MusicModel.is_pinned` tells the two cases
    apart.

    Args:
        model: Folder of a model, an MLflow URI such as models:/coma-gen@champion, or "pretrained" for the
            model that comes with the project; None for data/model of the checkout that contains the working
            directory, or the pretrained model where none was trained.
        device: cpu, cuda, mps or auto. Only cpu gives the bytes of the command line.
        threads: Number of CPU threads; results depend on it.
        pin: False leaves the instruction set and the number of threads of the process unchanged.

    Raises:
        UserError: The model or device does not exist, or the folder is incomplete.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(Fault("threads", f"must be 1 to {MAX_THREADS}", str(threads)))
    if pin and "numpy" not in sys.modules:
        seeding.pin_cpu(pin=True, threads=threads)

    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.tracking.model_store import named_model

    name = None if model is None else os.fspath(model)
    with named_model(name, Workspace.around(Path.cwd()), option="load_model(...)") as folder:
        return MusicModel(MusicGenerator.load(folder, device=device), threads=threads)


def _read_midi(source: Source, unnamed: str) -> tuple[bytes, str]:
    """Returns the content of a MIDI file and its name in errors."""
    from coma_gen.core.io import check_file
    from coma_gen.midi.io import midi_bytes, read_bytes
    from coma_gen.midi.notes import Notes

    if isinstance(source, bytes):
        return source, unnamed
    if isinstance(source, Notes):
        return midi_bytes(source), unnamed
    if not isinstance(source, str | os.PathLike):
        rule = "must be the path of a MIDI file, its content as bytes, or Notes"
        raise UserError(Fault(unnamed, rule, type(source).__name__))
    name = os.fspath(source)
    check_file(Path(name), name)
    return read_bytes(Path(name), name), name
