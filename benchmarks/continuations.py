"""How similar are a model's continuations to the real ones?

    python -m benchmarks.continuations --model pretrained --data data
    python -m benchmarks.continuations --best-of 4                  also the best of four per prompt
    python -m benchmarks.continuations --into docs/samples.md       write the tables into a page

Each prompt is the beginning of a passage of the test split; the passages are spaced evenly over it. The
model's continuation is compared with the real one, and so is another random passage of the same piece: the
noise floor, since a real passage does not equal its neighbor either. The music measures and the longest
passages shared with the train split are computed as in the stage `sample`, from the same continuations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if "numpy" not in sys.modules:  # numpy chooses its kernels at import
    from coma_gen.core.seeding import pin_cpu

    pin_cpu(pin=True, threads=1)


from benchmarks.all import insert_tables
from benchmarks.comparison import BestOf, Comparison, Target, table
from coma_gen.config.load import load_params
from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import write_atomic
from coma_gen.evaluation.sample_metrics import sample_metrics
from coma_gen.evaluation.splits import check_tokens
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import Controls
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.ranking import nearest
from coma_gen.generation.stage import generate_samples
from coma_gen.listening.passages import PassageSearch, find_passages
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.shards.read import ShardedSplit
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).resolve().parents[1]
NAME = "continuations"
MAX_DISTINGUISHING = 2
EXCERPTS = 400
"""Number of excerpts of train and of test with which the music measures of the samples are compared."""


def find_distinguishing(music: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lists the music measures of `sample_metrics` in which samples lie outside the range of real music."""
    return [
        name
        for name, figures in music.items()
        if figures["overlap"]["with_test"] < figures["overlap"]["of_real_low"]
        or figures["divergence"]["from_test"] > figures["divergence"]["of_real_high"]
    ]


def compare_with_real(metrics: Mapping[str, Any]) -> tuple[list[Target], str]:
    """Compares the figures of `sample_metrics` with the targets; also returns a sentence on the method."""
    apart, memory = find_distinguishing(metrics["music"]), metrics["memorization"]
    names = f" ({', '.join(apart)})" if apart else ""
    longest, expected = (
        memory["samples"]["longest_notes"],
        memory["test"]["longest_notes_of_as_many"],
    )
    targets = [
        Target(
            f"at most {MAX_DISTINGUISHING} of {len(metrics['music'])} music measures distinguish "
            "samples from test excerpts",
            f"{len(apart)}{names}",
            len(apart) <= MAX_DISTINGUISHING,
        ),
        Target(
            f"longest passage shared with train: {expected:.1f} notes, as of as many test excerpts",
            f"{longest:.0f}",
            longest <= memory["test"]["longest_notes"],
        ),
    ]
    of = metrics["excerpts"]
    return targets, (
        f"The music measures compare {of['at_a_time']} pieces of each set at a time, of {of['train']} and "
        f"{of['test']} excerpts."
    )


def generate_continuations(
    model: Path,
    prompts: Sequence[Notes],
    params: SampleParams,
    *,
    processes: int,
    draws: int = 1,
    follow: bool = True,
) -> list[list[Continuation]]:
    """Generates `draws` continuations of each prompt; the result does not depend on the number of processes.

    They are numbered through all prompts once, then again, so the first ones are the same for any `draws`.
    `follow` conditions a model with conditions on the prompt's values.
    """
    pieces = generate_samples(
        params,
        model,
        list(prompts) * draws,
        processes=processes,
        desc="continuations",
        controls=Controls(follow=follow),
    )
    return [pieces[index :: len(prompts)] for index in range(len(prompts))]


def measure(
    model: Path,
    shards: Path,
    params: SampleParams,
    *,
    split: str,
    processes: int,
    against_train: bool,
    draws: int = 1,
    follow: bool = True,
) -> str:
    """Computes all tables of a model.

    Args:
        model: Folder of the model.
        shards: Folder of the splits, encoded by the model's tokenizer.
        params: Number of prompts (`prompted`), lengths, seed and sampling.
        split: Split whose passages are continued.
        processes: Number of processes that sample.
        against_train: Also compare the music measures with excerpts and search for passages shared with
            train.
        draws: Continuations of each prompt; with more than one, the one most similar to its prompt is
            shown as well.
        follow: See `generate_continuations`.
    """
    check_tokens(shards, read_manifest(model, kind="model"), model)
    vocabulary = MusicGenerator.load(model).tokenizer.vocabulary
    found = find_passages(
        ShardedSplit.open(shards, split),
        vocabulary,
        count=params.prompted,
        prompt_seconds=params.prompt_seconds,
        seconds=params.seconds,
        seed=params.seed,
    )
    drawn = generate_continuations(
        model,
        [each.prompt for each in found.passages],
        params,
        processes=processes,
        draws=draws,
        follow=follow,
    )
    first = [pieces[0] for pieces in drawn]

    def compare(pieces: Sequence[Continuation]) -> tuple[Comparison, list[Target], str]:
        compared = Comparison.compute(found.passages, [piece.new for piece in pieces])
        if not against_train:
            return compared, compared.check_targets(), ""
        more, sentence = _against_train(model, shards, params, pieces)
        return compared, compared.check_targets() + more, sentence

    compared, targets, sentence = compare(first)
    rows = [[each.rule, each.result, "yes" if each.met else "no"] for each in targets]
    head, best = ["target", "result", "met"], None
    if draws > 1:
        nearest_compared, nearest_targets, _ = compare([nearest(pieces, 1)[0] for pieces in drawn])
        best = BestOf(draws, nearest_compared)
        head += [f"best of {draws}", "met"]
        rows = [
            [*row, each.result, "yes" if each.met else "no"]
            for row, each in zip(rows, nearest_targets, strict=True)
        ]
    notes = f"{_describe_run(found, first, params, split)} {sentence}".strip()
    return "\n\n".join([compared.means(best), compared.shares(best), table(head, rows), notes])


def _against_train(
    model: Path, shards: Path, params: SampleParams, pieces: Sequence[Continuation]
) -> tuple[list[Target], str]:
    with tempfile.TemporaryDirectory() as folder:
        for number, piece in enumerate(pieces):
            (Path(folder) / f"{number:04d}.mid").write_bytes(midi_bytes(piece.notes))
        return compare_with_real(sample_metrics(params, pieces, model, shards, Path(folder)))


def _describe_run(
    found: PassageSearch, pieces: Sequence[Continuation], params: SampleParams, split: str
) -> str:
    drawn, dropped = (sum(getattr(piece, name) for piece in pieces) for name in ("tokens", "redrawn"))
    cut, broken = (sum(not getattr(piece, name) for piece in pieces) for name in ("reached", "valid"))
    return (
        f"{params.prompt_seconds:g} s of prompt, {params.seconds:g} s of new music, seed {params.seed}, "
        f"top-p {params.top_p} among {', '.join(params.truncate) or 'nothing'}; the {split} split, without "
        f"{found.too_short} performances that are too short and {found.without_notes} places without notes. "
        f"{cut} pieces ended early and {broken} break the grammar; sampling went back "
        f"{sum(piece.rewinds for piece in pieces)} times, which dropped {dropped / (drawn + dropped):.1%} of "
        "the tokens."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continuations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="pretrained", help="a folder, or pretrained (the default)")
    add("--data", type=Path, default=ROOT / "data", help="folder that contains shards/ (default: data)")
    add("--prompts", type=int, default=200, help="number of prompts (default: 200)")
    add(
        "--split", default="test", choices=("test", "validation"), help="split of the prompts (default: test)"
    )
    add("--prompt-seconds", type=float, default=8.0, help="length of a prompt (default: 8)")
    add("--seconds", type=float, default=30.0, help="length of the new music (default: 30)")
    add("--seed", type=int, default=0, help="seed of the random numbers (default: 0)")
    add("--processes", type=int, default=2, choices=(1, 2), help="processes that sample (default: 2)")
    add(
        "--best-of",
        type=int,
        default=1,
        metavar="N",
        help="draw N continuations of each prompt and also show the best",
    )
    add("--no-follow", action="store_true", help="do not condition the model on the prompt's values")
    add("--no-train", action="store_true", help="skip the measures that need the train split")
    add("--into", type=Path, help=f"also write the tables into the section {NAME} of this page")
    options = parser.parse_args(arguments)
    params = load_params(ROOT / "params.yaml").sample.model_copy(
        update={
            "prompted": options.prompts,
            "prompt_seconds": options.prompt_seconds,
            "seconds": options.seconds,
            "seed": options.seed,
            "excerpts": EXCERPTS,
        }
    )
    with named_model(options.model, Workspace.around(ROOT)) as model:
        text = measure(
            model,
            options.data / "shards",
            params,
            split=options.split,
            processes=options.processes,
            against_train=not options.no_train,
            draws=max(1, options.best_of),
            follow=not options.no_follow,
        )
    print(text)
    if options.into is not None:
        write_atomic(options.into, insert_tables(options.into.read_text(encoding="utf-8"), {NAME: text}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
