"""The result of the Python API: a generated piece to save, play, and show in a notebook."""

from __future__ import annotations

import base64
import html
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coma_gen.core.errors import Fault, UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coma_gen.midi.notes import Notes


class Audio(NamedTuple):
    """Audio: (n, channels) samples from -1 to 1, and the number of samples per second."""

    samples: npt.NDArray[np.float32]
    sample_rate: int


@dataclass(frozen=True, repr=False)
class GeneratedPiece:
    """One generated piece: the prompt with its continuation, or music without a prompt.

    Attributes:
        notes: Notes of the prompt and the continuation; with `only_new` those of the continuation alone,
            relative to the splice.
        new_notes: Notes of the continuation, at their times in the piece.
        prompt_seconds: Onset of the prompt's last note; None where the piece does not include a prompt.
        midi: The piece as a MIDI file, in which the prompt's tracks are unchanged.
        title: Heading of pictures.
        left_out: Number of missing notes by reason: notes of the prompt that the model did not read because
            they are drums or outside its vocabulary (they stay in the file), notes without an end, and new
            notes on keys that the prompt still held.
    """

    notes: Notes
    new_notes: Notes
    prompt_seconds: float | None
    midi: bytes
    title: str
    left_out: dict[str, int]

    def __repr__(self) -> str:
        num_prompt = len(self.notes) - len(self.new_notes)
        start = f"{num_prompt:,} prompt notes + " if self.prompt_seconds is not None else ""
        return f"<GeneratedPiece: {start}{len(self.new_notes):,} new notes, {self.notes.end:.1f} s>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the piece atomically; an existing file is replaced.

        Args:
            path: Path to write. Its suffix selects the format: .mid or .midi (music), .png (piano roll), or
                .flac, .wav, .mp3, .ogg (sound).

        Returns:
            The path.

        Raises:
            UserError: The suffix is unknown.
        """
        from coma_gen.audio.writers import AUDIO_WRITERS
        from coma_gen.core.io import write_atomic

        target = Path(path)
        suffix = target.suffix.lower()
        if suffix in (".mid", ".midi"):
            write_atomic(target, self.midi)
        elif suffix == ".png":
            write_atomic(target, self._repr_png_())
        elif suffix.removeprefix(".") in AUDIO_WRITERS:
            self._write_sound(target)
        else:
            rule = f"must end in .mid, .midi, .png{''.join(f', .{name}' for name in AUDIO_WRITERS)}"
            raise UserError(Fault(str(target), rule, suffix or "no suffix"))
        return target

    def to_audio(self) -> Audio:
        """Renders the piece with the built-in piano, as `save("out.wav")` does: stereo at 22,050 Hz."""
        import numpy as np

        from coma_gen.audio.synth import SAMPLE_RATE, sound
        from coma_gen.midi.playback import read_sounding_notes

        pcm = sound(read_sounding_notes(self.midi, name=self.title))
        return Audio(pcm.astype(np.float32) / np.float32(32_767), SAMPLE_RATE)

    def show(self) -> None:
        """Shows a piano roll and an audio player in a Jupyter notebook.

        Raises:
            UserError: IPython is not installed.
        """
        try:
            from IPython.display import display
        except ImportError:
            remedy = "run `pip install notebook`, or write files with .save('out.png') and .save('out.flac')"
            raise UserError(Fault("show", "needs IPython", "an environment without it", remedy)) from None
        display(self)

    def _repr_png_(self) -> bytes:
        """The piano roll, which Jupyter shows where it cannot show HTML."""
        from coma_gen.report.piano_roll import roll_png

        return roll_png(self.notes, title=self.title, prompt_seconds=self.prompt_seconds)

    def _repr_html_(self) -> str:
        """The piano roll and an audio player, which Jupyter shows for a piece that ends a cell."""
        with tempfile.TemporaryDirectory(prefix="coma-gen-show-") as folder:
            sound = Path(folder) / "piece.flac"
            self._write_sound(sound)
            flac = base64.b64encode(sound.read_bytes()).decode("ascii")
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        return (
            f'<img alt="{html.escape(self.title)}" style="max-width: 100%" '
            f'src="data:image/png;base64,{picture}"><br>'
            f'<audio controls src="data:audio/flac;base64,{flac}"></audio>'
        )

    def _write_sound(self, path: Path) -> None:
        from coma_gen.audio.synth import write_sound
        from coma_gen.midi.playback import read_sounding_notes

        write_sound(path, read_sounding_notes(self.midi, name=self.title))
