"""`coma-gen finetune`: fine-tune a trained model on your own music, as a DVC experiment.

DVC deletes data/model before it trains, so the initial model is first copied to a folder below .downloads
that is named by its digest; everything else is a preset. The `dvc exp run` command is printed before it is
run.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coma_gen.core.artifact import Manifest, verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import MODEL_HELP

PRESET = "finetune"
EXAMPLES = """examples:
  coma-gen finetune /music/midi                        from the model that `dvc repro` trained
  coma-gen finetune /music/midi -n mine -S train.steps=600
  coma-gen finetune /music/midi --model models:/coma-gen/3

This calls `dvc exp run` with presets/finetune.yaml; further arguments are passed to it. The new model is
evaluated on a test split of your own music. docs/walkthrough.md says how many files are needed and how to
judge the result.
"""


def add_command(commands: Any) -> None:
    """Adds `finetune` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune a model on a folder of your own MIDI files",
        description="Fine-tune a model on your own MIDI files, as a DVC experiment.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder of .mid and .midi files, searched recursively"
    )
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.set_defaults(run=run, takes_more=True)


def run(workspace: Workspace, options: argparse.Namespace, rest: list[str]) -> int:
    """Copies the initial model, and runs the experiment."""
    from coma_gen.tracking.model_store import named_model

    music = (
        Path(options.folder).expanduser().resolve()
    )  # relative to the current directory, not to the checkout
    if not music.is_dir():
        got = "a file" if music.exists() else "nothing there"
        raise UserError(Fault(str(music), "must be a folder of MIDI files", got))
    if not _is_utf8(music):
        raise UserError(
            Fault(str(music), "must have a name in UTF-8, the encoding of params.yaml", "", "rename it")
        )
    with named_model(options.model, workspace) as folder:
        manifest = verify_artifact(folder, kind="model")
        _check_tokens(workspace, folder)
        copied = keep(workspace, folder, manifest)
    flags = [*finetune_flags(workspace, music, copied), *rest]
    print(shlex.join(["dvc", "exp", "run", *flags]), flush=True)
    command = [sys.executable, "-m", "dvc", "exp", "run", *flags]
    elsewhere = {"--queue", "--temp"}  # with these, the metrics in this checkout are not of this run
    status = subprocess.run(command, cwd=workspace.root, check=False).returncode
    if status == 0 and not elsewhere.intersection(rest):
        for line in unreadable_files(workspace):
            print(line)
    return status


def unreadable_files(workspace: Workspace) -> Iterator[str]:
    """Lists the files that the last run skipped because they could not be read, and why."""
    found = read_json(workspace.root / "metrics" / "split.json")["unreadable"]
    if files := found.get("files"):
        yield f"skipped {len(files):,} unreadable files:"
        yield from (f"  {line}" for line in files)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def keep(workspace: Workspace, folder: Path, manifest: Manifest) -> Path:
    """Copies a model, once, to a folder that no stage writes to."""
    copied = workspace.downloads / "models" / manifest.digest[:16]
    if not copied.exists():
        with atomic_dir(copied) as building:
            shutil.copytree(folder, building, dirs_exist_ok=True)
    verify_artifact(copied, kind="model")
    return copied


def finetune_flags(workspace: Workspace, music: Path, model: Path) -> list[str]:
    """The `-S` flags that set the preset, the music, and the initial model with its shape."""
    from coma_gen.config.load import load_params
    from coma_gen.workspace.presets import format_flags, preset_flags

    shape = read_json(model / "config.json")["model"]
    train: dict[str, Any] = {"init_from": str(model)}
    longest = max(shape["window_sizes"])
    if longest > load_params(workspace.params).train.seq_len:
        train["seq_len"] = longest
    own = {"model": shape, "train": train, "download": {"path": str(music)}}
    return [*preset_flags(workspace.root, PRESET), *format_flags(own)]


def _check_tokens(workspace: Workspace, model: Path) -> None:
    """Checks that params.yaml defines the tokenizer of the model.

    Raises:
        UserError: If it does not, or if the tokenizer uses byte-pair encoding, which depends on the corpus.
    """
    from coma_gen.config.load import load_params
    from coma_gen.tokenizer.remi import Tokenizer

    theirs = Tokenizer.load(model / "tokenizer").vocabulary
    ours = Tokenizer.build(load_params(workspace.params).tokenizer).vocabulary
    if theirs.learned:
        rule = "must be a model without byte-pair encoding (tokenizer.vocab_size: null)"
        raise UserError(Fault("--model", rule, f"one of {len(theirs):,} tokens"))
    if theirs != ours:
        remedy = "copy the tokenizer section that it was trained with into params.yaml"
        raise UserError(
            Fault("params.yaml: tokenizer", "must match the model's tokenizer", "another vocabulary", remedy)
        )
