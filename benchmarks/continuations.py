"""How near are a model's continuations to the real ones?

    python -m benchmarks.continuations --model pretrained --data data
    python -m benchmarks.continuations --best-of 4                  beside the nearest of four to each prompt
    python -m benchmarks.continuations --into docs/samples.md       the tables into their place

Each prompt is the beginning of a passage of the test split, evenly over it. What the model goes on with is
held against what follows there, and so is another passage of the same piece, drawn at random: the noise
floor, for a real passage is not its neighbor either. The music measures and the longest passages shared with
the train split are those of the stage `sample`, of the same continuations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
    from coma_gen.core.seeding import pin_cpu

    pin_cpu(pin=True, threads=1)


from benchmarks.all import placed
from benchmarks.comparison import Best, Comparison, Wanted, table
from coma_gen.config.load import load_params
from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import write_atomic
from coma_gen.core.parallel import map_prepared
from coma_gen.evaluation.sample_metrics import sample_metrics
from coma_gen.evaluation.splits import check_tokens
from coma_gen.generation.controls import Controls
from coma_gen.generation.generate import Continuation, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.ranking import nearest
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.stage import SIDE_BY_SIDE
from coma_gen.listening.passages import Found, find_passages
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).resolve().parents[1]
NAME = "continuations"
MOST_TOLD_APART = 2
EXCERPTS = 400
"""Of train and of test each, that the samples' music measures are held against."""


def told_apart(music: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The music measures in which samples lie beyond what real music reaches, of `sample_metrics`."""
    return [
        name
        for name, figures in music.items()
        if figures["overlap"]["with_test"] < figures["overlap"]["of_real_low"]
        or figures["divergence"]["from_test"] > figures["divergence"]["of_real_high"]
    ]


def against_real(metrics: Mapping[str, Any]) -> tuple[list[Wanted], str]:
    """What `sample_metrics` says of the samples."""
    apart, memory = told_apart(metrics["music"]), metrics["memorization"]
    names = f" ({', '.join(apart)})" if apart else ""
    longest, expected = (
        memory["samples"]["longest_notes"],
        memory["test"]["longest_notes_of_as_many"],
    )
    wanted = [
        Wanted(
            f"at most {MOST_TOLD_APART} of {len(metrics['music'])} music measures tell from test excerpts",
            f"{len(apart)}{names}",
            len(apart) <= MOST_TOLD_APART,
        ),
        Wanted(
            f"longest passage shared with train: {expected:.1f} notes, as of as many test excerpts",
            f"{longest:.0f}",
            longest <= memory["test"]["longest_notes"],
        ),
    ]
    of = metrics["excerpts"]
    return wanted, (
        f"The music measures compare {of['at_a_time']} pieces of each set at a time, of {of['train']} and "
        f"{of['test']} excerpts."
    )


def continued(
    model: Path,
    prompts: Sequence[Notes],
    params: SampleParams,
    *,
    processes: int,
    draws: int = 1,
    follow: bool = True,
) -> list[list[Continuation]]:
    """For each of N prompts so many continuations; how many processes share the work changes nothing.

    They are numbered through all prompts once, then again, so that the first are the same for any `draws`.
    `follow` tells a model with conditions to keep to the prompt's.
    """
    numbered = list(enumerate(list(prompts) * draws))
    groups = [dict(numbered[first : first + SIDE_BY_SIDE]) for first in range(0, len(numbered), SIDE_BY_SIDE)]
    drawn = map_prepared(
        partial(_draw, params, follow),
        groups,
        costs=[float(len(group)) for group in groups],
        prepare=partial(_prepared, model),
        processes=processes,
        desc="continuations",
        unit="piece",
    )
    pieces = [piece for group in drawn for piece in group]
    return [pieces[index :: len(prompts)] for index in range(len(prompts))]


@contextmanager
def _prepared(model: Path) -> Iterator[MusicGenerator]:
    with deterministic(1):
        yield MusicGenerator.load(model)


def _draw(
    params: SampleParams, follow: bool, composer: MusicGenerator, prompts: dict[int, Notes]
) -> list[Continuation]:
    return generate_batch(
        composer,
        list(prompts.values()),
        seconds=params.seconds,
        choice=SamplingParams.of(params),
        seed=params.seed,
        max_tokens=params.max_tokens,
        max_empty_bars=params.max_empty_bars,
        max_rewinds=params.max_rewinds,
        desc=None,
        numbers=list(prompts),
        controls=Controls(follow=follow),
    )


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
    """All tables of a model.

    Args:
        model: its folder.
        shards: with the splits, by the same tokenizer.
        params: `prompted` is how many prompts; the seconds, the seed and how tokens are chosen.
        split: whose passages are continued.
        processes: that share the sampling.
        against_train: also the music measures against excerpts and the passages shared with train.
        draws: continuations of each prompt; of more than one the nearest to its prompt stands beside.
        follow: as `continued`.
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
    drawn = continued(
        model,
        [each.prompt for each in found.passages],
        params,
        processes=processes,
        draws=draws,
        follow=follow,
    )
    first = [pieces[0] for pieces in drawn]

    def held(pieces: Sequence[Continuation]) -> tuple[Comparison, list[Wanted], str]:
        compared = Comparison.of(found.passages, [piece.new for piece in pieces])
        if not against_train:
            return compared, compared.wanted(), ""
        more, sentence = _against_train(model, shards, params, pieces)
        return compared, compared.wanted() + more, sentence

    compared, wanted, sentence = held(first)
    rows = [[each.rule, each.found, "yes" if each.holds else "no"] for each in wanted]
    head, best = ["wanted", "found", "holds"], None
    if draws > 1:
        nearest_compared, reached, _ = held([nearest(pieces, 1)[0] for pieces in drawn])
        best = Best(draws, nearest_compared)
        head += [f"best of {draws}", "holds"]
        rows = [
            [*row, each.found, "yes" if each.holds else "no"] for row, each in zip(rows, reached, strict=True)
        ]
    told = f"{_told(found, first, params, split)} {sentence}".strip()
    return "\n\n".join([compared.means(best), compared.shares(best), table(head, rows), told])


def _against_train(
    model: Path, shards: Path, params: SampleParams, pieces: Sequence[Continuation]
) -> tuple[list[Wanted], str]:
    with tempfile.TemporaryDirectory() as folder:
        for number, piece in enumerate(pieces):
            (Path(folder) / f"{number:04d}.mid").write_bytes(midi_bytes(piece.notes))
        return against_real(sample_metrics(params, pieces, model, shards, Path(folder)))


def _told(found: Found, pieces: Sequence[Continuation], params: SampleParams, split: str) -> str:
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
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continuations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="pretrained", help="a folder, or pretrained (the default)")
    add("--data", type=Path, default=ROOT / "data", help="with shards/ (default: data)")
    add("--prompts", type=int, default=200, help="how many (default: 200)")
    add("--split", default="test", choices=("test", "validation"), help="(default: test)")
    add("--prompt-seconds", type=float, default=8.0, help="of each prompt (default: 8)")
    add("--seconds", type=float, default=30.0, help="of new music (default: 30)")
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--processes", type=int, default=2, choices=(1, 2), help="that sample (default: 2)")
    add(
        "--best-of",
        type=int,
        default=1,
        metavar="N",
        help="continuations of each prompt, of which the nearest is shown, too",
    )
    add("--no-follow", action="store_true", help="tell a model with conditions nothing of the prompt")
    add("--no-train", action="store_true", help="leave out what needs the train split")
    add("--into", type=Path, help=f"a page with a place named {NAME}, which is written, too")
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
        write_atomic(options.into, placed(options.into.read_text(encoding="utf-8"), {NAME: text}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
