"""Continues a MIDI file three times and saves the continuation with the highest likelihood.

    python examples/continue_midi.py examples/prompts/waltz.mid --out generated/waltz

Without --model it uses the model that was trained in this checkout, or else the pretrained one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coma_gen import load_model  # import before numpy, for the same bytes on every machine


def main(arguments: list[str] | None = None) -> None:
    """Generates three continuations, scores them and saves the best."""
    parser = argparse.ArgumentParser(description="Continue a MIDI file three times and save the best.")
    parser.add_argument("prompt", type=Path, help="a MIDI file")
    parser.add_argument("--model", help="a folder, or an MLflow URI such as models:/coma-gen@champion")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the new music")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path("continued"), help="path of the output files, without extension"
    )
    options = parser.parse_args(arguments)

    model = load_model(options.model)
    print(f"{options.prompt.name}: {model.score(options.prompt).bits_per_note_10ms:.2f} bits per note")

    pieces = model.generate(options.prompt, seconds=options.seconds, seed=options.seed, num=3)
    bits = [model.score(piece.midi).bits_per_note_10ms for piece in pieces]
    for number, (piece, cost) in enumerate(zip(pieces, bits, strict=True), start=1):
        print(f"{number}: {len(piece.new_notes)} new notes, {cost:.2f} bits per note")

    best = pieces[bits.index(min(bits))]
    for ending in (".mid", ".png", ".flac"):
        print(best.save(options.out.with_suffix(ending)))


if __name__ == "__main__":
    main()
