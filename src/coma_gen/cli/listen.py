"""`coma-gen listen`: create the page of a blind listening test, and score the answers."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import MODEL_HELP, name_of_model

EXAMPLES = """examples:
  coma-gen listen                                        listening.html: model, real music and 5-gram
  coma-gen listen --sources model,real --trials 20       only these two, in 20 trials
  coma-gen listen --sources pretrained,/runs/new/model   compare two models
  coma-gen listen --score answers-*.json                 score the answers to listening.html

The page is a single offline file: send it to listeners, who send back the file of answers that it saves. Each
trial plays a prompt from the test split with two continuations from hidden sources. The same command gives
the same page.
"""
MODEL = "model"
"""The source name for the model given by `--model`."""
RANGES = {"trials": (1, 500), "seconds": (2, 300), "prompt_seconds": (1, 120), "seed": (0, 2**63 - 1)}
"""Option -> allowed range."""


def add_command(commands: Any) -> None:
    """Adds `listen` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "listen",
        help="create a blind listening test as a page, or score its answers",
        description="Create the page of a blind listening test, or score its answers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sources", default="model,real,5-gram", metavar="NAMES", help="two or more of model, real, 5-gram, "
        "pretrained and model folders, separated by commas (default: model,real,5-gram)")  # fmt: skip
    add("--model", metavar="MODEL", help=MODEL_HELP)
    add("--trials", type=int, default=12, metavar="N", help="pairs to compare (default: 12)")
    add("--prompt-seconds", type=float, default=8.0, metavar="S", help="length of each prompt (default: 8)")
    add("--seconds", type=float, default=20.0, metavar="S", help="length of each continuation (default: 20)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of prompts, music, order and sides (default: 0)",
    )
    add("--data", metavar="FOLDER", help="folder with shards/ and tokenizer/ (default: the checkout's data)")
    add("--page", default="listening.html", metavar="FILE", help="(default: listening.html)")
    add("--force", action="store_true", help="replace the page; its answers can then no longer be scored")
    add("--score", nargs="+", metavar="FILE", help="score the answers in these files")
    parser.set_defaults(run=run)


def run(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    """Creates the page, or prints the scores."""
    return _score(options) if options.score else _make(workspace, options)


def _score(options: argparse.Namespace) -> int:
    from coma_gen.listening.answer_key import AnswerKey
    from coma_gen.listening.scores import read_answers, score_table

    key = AnswerKey.from_page(Path(options.page))
    listeners = read_answers([Path(name) for name in options.score], key)
    print(f"{options.page}: {len(key.trials)} trials; listeners: {len(listeners)}\n")
    print(score_table(listeners))
    return 0


def _make(workspace: Workspace, options: argparse.Namespace) -> int:
    page = Path(options.page)
    sources = [name.strip() for name in options.sources.split(",")]
    _check(options, sources, page)
    if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
        from coma_gen.core.seeding import pin_cpu

        pin_cpu(pin=True, threads=1)

    from coma_gen.core.io import write_atomic
    from coma_gen.listening.build import build_page
    from coma_gen.listening.trials import NGRAM, REAL
    from coma_gen.tracking.model_store import named_model

    data = Path(options.data) if options.data else workspace.root / "data"
    with ExitStack() as stack:
        models = {}
        for name in sources:
            if name not in (REAL, NGRAM):
                named = options.model if name == MODEL else name
                models[name] = stack.enter_context(named_model(named, workspace))
                called = name_of_model(named, models[name]) or "data/model"
                print(f"{name}: {called}{_warn_of_overlap(models[name], data)}")
        text, key = build_page(
            models,
            sources,
            data,
            count=options.trials,
            prompt_seconds=options.prompt_seconds,
            seconds=options.seconds,
            seed=options.seed,
        )
    write_atomic(page, text)
    minutes = options.trials * 2 * (options.prompt_seconds + options.seconds) / 60
    print(f"{page}: {options.trials} trials, about {minutes:.0f} minutes of music, {len(text) / 1e6:.1f} MB")
    print(f"to score its answers: coma-gen listen --page {page} --score answers-*.json ({key.digest})")
    return 0


def _warn_of_overlap(model: Path, data: Path) -> str:
    """A warning if the model was trained on other shards than those whose test split is played."""
    from coma_gen.core.artifact import read_manifest

    trained_on = read_manifest(model, kind="model").made_from.get("shards")
    is_same = trained_on == read_manifest(data / "shards", kind="shards").digest
    return "" if is_same else f" (trained on other data than {data}: it may have seen the test pieces)"


def _check(options: argparse.Namespace, sources: list[str], page: Path) -> None:
    """Checks the options."""
    faults = [
        Fault(f"--{name.replace('_', '-')}", f"must be {low:,} to {high:,}", str(value))
        for name, (low, high) in RANGES.items()
        if not low <= (value := getattr(options, name)) <= high
    ]
    if len(sources) < 2 or len(set(sources)) < len(sources) or "" in sources:
        rule = "must be two or more different names, separated by commas"
        faults.append(Fault("--sources", rule, options.sources))
    if page.exists() and not (options.force and page.is_file()):
        faults.append(
            Fault(str(page), "must not exist yet", "", "--force replaces it, or name another --page")
        )
    if faults:
        raise UserError(*faults)
