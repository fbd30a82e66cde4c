"""The trials of a listening test: prompts of the test split with two continuations each, in random order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tqdm import tqdm

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.seeding import generator
from coma_gen.evaluation.kneser_ney import KneserNey
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import TOP_P, SamplingParams
from coma_gen.listening.ngram_music import continue_by_ngrams
from coma_gen.listening.passages import Passage, find_passages
from coma_gen.midi.notes import Notes
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.remi import Tokenizer

REAL, NGRAM = "real", "5-gram"
ORDER = 5
MAX_TOKENS = 4096
"""Maximum number of tokens of a continuation."""
SAMPLING = SamplingParams(top_p=TOP_P)
Sides = tuple[str, str]


@dataclass(frozen=True)
class Trial:
    """One comparison.

    Attributes:
        sides: Sources of A and B.
        passage: Passage with the prompt.
        new: Continuations of A and B, with times relative to the prompt's last onset.
    """

    sides: Sides
    passage: Passage
    new: tuple[Notes, Notes]


def draw_sides(sources: Sequence[str], count: int, seed: int) -> list[Sides]:
    """Draws the sources of each trial; every pair, in either order, occurs as equally often as possible."""
    pairs = list(combinations(sources, 2))
    source = generator(seed, "sides")
    flips = source.integers(2, size=len(pairs))
    sides = []
    for index in range(count):
        turn, column = divmod(index, len(pairs))
        first, second = pairs[column]
        sides.append((second, first) if (turn + flips[column]) % 2 else (first, second))
    return [sides[index] for index in source.permutation(count)]


def make_trials(
    models: Mapping[str, Path],
    sources: Sequence[str],
    data: Path,
    *,
    count: int,
    prompt_seconds: float,
    seconds: float,
    seed: int,
) -> list[Trial]:
    """Draws the trials and generates their music.

    Args:
        models: Name -> folder of those sources that are models.
        sources: Two or more names: of models, `REAL` or `NGRAM`.
        data: Folder with shards/ (the test split for prompts, the train split for the n-grams) and their
            tokenizer/.
        count: Number of trials.
        prompt_seconds: Length of each prompt.
        seconds: Length of each continuation.
        seed: Seed of all random numbers.

    Raises:
        UserError: The shards have another tokenizer, or the split has too few passages.
    """
    shards, tokenizer = data / "shards", Tokenizer.load(data / "tokenizer")
    test = ShardedSplit.open(shards, "test")
    if test.manifest.made_from["tokenizer"] != tokenizer.digest:
        rule, remedy = f"must be the tokenizer of {shards}", "run `dvc repro shard`"
        raise UserError(Fault(str(data / "tokenizer"), rule, "another one", remedy))
    found = find_passages(
        test,
        tokenizer.vocabulary,
        count=count,
        prompt_seconds=prompt_seconds,
        seconds=seconds,
        seed=seed,
    )
    if len(found.passages) < count:
        rule = f"must have {count} passages in the test split, one for each trial"
        remedy = "ask for fewer trials, or for less music in each"
        raise UserError(Fault(str(shards), rule, str(len(found.passages)), remedy))
    passages = [found.passages[index] for index in generator(seed, "passages").permutation(count)]
    sides = draw_sides(sources, count, seed)

    with deterministic(1):
        made: dict[str, dict[int, Notes]] = {}
        for name in sources:
            passages_of = {number: passages[number] for number in range(count) if name in sides[number]}
            if name == REAL:
                made[name] = {number: passage.real for number, passage in passages_of.items()}
            elif not passages_of:
                made[name] = {}
            elif name == NGRAM:
                made[name] = _continue_by_ngrams(shards, tokenizer, passages_of, seconds, seed)
            else:
                made[name] = _continue_by_model(models[name], passages_of, seconds, seed)
    return [
        Trial(pair, passage, (made[pair[0]][number], made[pair[1]][number]))
        for number, (pair, passage) in enumerate(zip(sides, passages, strict=True))
    ]


def _continue_by_model(
    folder: Path, passages_of: dict[int, Passage], seconds: float, seed: int
) -> dict[int, Notes]:
    """Continues the prompts of some trials with a model; returns number of the trial -> notes."""
    pieces = generate_batch(
        MusicGenerator.load(folder),
        [passage.prompt for passage in passages_of.values()],
        seconds=seconds,
        sampling=SAMPLING,
        seed=seed,
        max_tokens=MAX_TOKENS,
        desc=folder.name,
        numbers=list(passages_of),
    )
    return {number: piece.new for number, piece in zip(passages_of, pieces, strict=True)}


def _continue_by_ngrams(
    shards: Path, tokenizer: Tokenizer, passages_of: dict[int, Passage], seconds: float, seed: int
) -> dict[int, Notes]:
    """Continues the prompts of some trials with n-grams of the train split."""
    train = ShardedSplit.open(shards, "train", copies=False)
    pieces = [train.piece(int(row)) for row in train.originals]
    model = KneserNey(pieces, tokenizer.vocab_size, order=ORDER)
    return {
        number: continue_by_ngrams(
            model,
            tokenizer,
            passage.prompt,
            order=ORDER,
            seconds=seconds,
            sampling=SAMPLING,
            seed=seed,
            number=number,
            max_tokens=MAX_TOKENS,
        )
        for number, passage in tqdm(passages_of.items(), desc=NGRAM, unit="piece", disable=None)
    }
