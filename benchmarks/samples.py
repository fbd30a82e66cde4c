"""Regenerates docs/samples.md and its audio for a new pretrained model.

    python -m benchmarks.samples                    what `make samples` runs; needs MAESTRO's shards in data/
    python -m benchmarks.samples --prompts 0        without the tables, which take some minutes

Eight prompts, evenly spaced over the test split, are continued with one seed, without selection. For each,
the page has a piano roll, audio without the prompt, and figures next to those of the real continuation. The
tables are those of `benchmarks.continuations`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if "numpy" not in sys.modules:  # numpy chooses its kernels at import
    from coma_gen.core.seeding import pin_cpu

    pin_cpu(pin=True, threads=1)

from tqdm import tqdm

from benchmarks import continuations
from benchmarks.all import insert_tables
from coma_gen.audio.synth import sound
from coma_gen.audio.writers import small_ogg
from coma_gen.config.load import load_params
from coma_gen.config.schema import SampleParams
from coma_gen.core.errors import UserError
from coma_gen.core.io import atomic_dir, write_atomic
from coma_gen.generation.continuation import Continuation
from coma_gen.listening.passages import Passage, find_passages
from coma_gen.midi.measures import (
    duration,
    longest_stay,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes
from coma_gen.report.piano_roll import roll_png
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace.paths import Workspace

PIECES = 8
SECTION = "pieces"
SAMPLE_RATE = 16_000
PAGE = continuations.ROOT / "docs" / "samples.md"


def write_pieces(
    model: Path, shards: Path, params: SampleParams, folder: Path, *, count: int, processes: int
) -> str:
    """Continues prompts and writes pictures and audio into a folder, which is replaced.

    Returns:
        The pieces as Markdown, with links relative to the parent of `folder`.
    """
    split = ShardedSplit.open(shards, "test")
    passages = find_passages(
        split,
        Vocabulary.load(model / "tokenizer"),
        count=count,
        prompt_seconds=params.prompt_seconds,
        seconds=params.seconds,
        seed=params.seed,
    ).passages
    prompts = [passage.prompt for passage in passages]
    drawn = continuations.generate_continuations(model, prompts, params, processes=processes)
    titles = {
        str(row["midi_filename"]): f"{row['composer']}, {row['title']}"
        for row in split.index.iloc[split.originals].to_dict("records")
    }
    parts = []
    with atomic_dir(folder) as building:
        pairs = list(enumerate(zip(passages, drawn, strict=True), start=1))
        for number, (passage, (piece,)) in tqdm(pairs, desc="pictures, sound", disable=None):
            title, stem = titles[passage.midi_filename], f"{number:02d}"
            picture = roll_png(piece.notes, title=title, prompt_seconds=piece.prompt_end)
            write_atomic(building / f"{stem}.png", picture)
            pcm = sound(piece.new, sample_rate=SAMPLE_RATE, channels=1)
            write_atomic(building / f"{stem}.ogg", small_ogg(pcm, sample_rate=SAMPLE_RATE))
            parts.append(_describe_piece(f"{folder.name}/{stem}", f"{number}. {title}", passage, piece))
    return "\n\n".join(parts)


def _describe_piece(link: str, title: str, passage: Passage, piece: Continuation) -> str:
    minutes, seconds = divmod(round(piece.new.end), 60)
    at = f"{passage.start // 60:.0f}:{passage.start % 60:02.0f}"
    about = f"{minutes}:{seconds:02d}; {piece.prompt_end:.1f} s of prompt, from {at} on"
    about += f"; sampling went back {piece.rewinds} x" if piece.rewinds else ""
    sets = {"prompt": passage.prompt, "model": piece.new, "real": passage.real}
    figures = {name: _measure_piece(notes, passage.prompt) for name, notes in sets.items()}
    return "\n".join(
        [
            f"### {title}",
            "",
            f"![Piano roll of {title}: the prompt in blue, its continuation in red]({link}.png)",
            "",
            f"[Hear it]({link}.ogg) ({about}).",
            "",
            f"| | {' | '.join(figures['real'])} |",
            "|---" * (1 + len(figures["real"])) + "|",
            *(f"| {name} | {' | '.join(row.values())} |" for name, row in figures.items()),
        ]
    )


def _measure_piece(notes: Notes, prompt: Notes) -> dict[str, str]:
    """Computes measures of properties that a listener may notice."""
    if not len(notes):
        notes = Notes.of([0.0], [0.0], [60], [1])
    first, last = longest_stay(notes.onset, notes.pitch)
    return {
        "notes a second": f"{notes_per_second(notes):.1f}",
        "notes at once": f"{polyphony(notes):.1f}",
        "mean duration": f"{duration(notes):.2f} s",
        "velocity": f"{velocity(notes):.0f}",
        "in the prompt's scale": f"{share_in_scale(notes, nearest_scale(prompt)):.0%}",
        "longest on three keys": f"{notes.onset[last] - notes.onset[first]:.1f} s",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Generates the pieces, then the tables, and writes both into the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.samples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="pretrained", help="a folder, or pretrained (the default)")
    add(
        "--data",
        type=Path,
        default=continuations.ROOT / "data",
        help="folder that contains shards/ (default: data)",
    )
    add("--page", type=Path, default=PAGE, help="page to rewrite (default: docs/samples.md)")
    add("--pieces", type=int, default=PIECES, help=f"number of pieces (default: {PIECES})")
    add("--prompts", type=int, default=200, help="prompts for the tables; 0 keeps the tables (default: 200)")
    add("--processes", type=int, default=2, choices=(1, 2), help="processes that sample (default: 2)")
    add("--best-of", type=int, default=1, metavar="N", help="continuations drawn per prompt (default: 1)")
    add("--no-train", action="store_true", help="skip the measures that need the train split")
    options = parser.parse_args(arguments)
    params = load_params(continuations.ROOT / "params.yaml").sample
    shards = options.data / "shards"
    with named_model(options.model, Workspace.around(continuations.ROOT)) as model:
        texts = {
            SECTION: write_pieces(
                model,
                shards,
                params,
                options.page.with_suffix(""),
                count=options.pieces,
                processes=options.processes,
            )
        }
        if options.prompts:
            changes = {"prompted": options.prompts, "excerpts": continuations.EXCERPTS}
            texts[continuations.NAME] = continuations.measure(
                model,
                shards,
                params.model_copy(update=changes),
                split="test",
                processes=options.processes,
                against_train=not options.no_train,
                draws=max(1, options.best_of),
            )
    write_atomic(options.page, insert_tables(options.page.read_text(encoding="utf-8"), texts))
    print(f"{options.page}: written, with {options.pieces} pieces in {options.page.with_suffix('')}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
