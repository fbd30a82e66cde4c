"""The recipes of CONTRIBUTING.md, each applied to a copy of the source."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from subprocess_utils import environment

from coma_gen.config.schema import DownloadParams, ModelParams
from coma_gen.corpus.build import CORPORA
from coma_gen.model.positions import POSITIONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


class Edit(NamedTuple):
    """One hunk: the file, the text in it, and what takes its place."""

    path: str
    old: str
    new: str


def edits(title: str) -> list[Edit]:
    """What the recipe under a heading changes."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = []
    for block in re.findall(r"```diff\n(.*?)```", section, re.DOTALL):
        head, *hunks = block.split("@@\n")
        for hunk in hunks:
            lines = [(line[:1] or " ", line[1:]) for line in hunk.splitlines()]
            old, new = ("\n".join(text for sign, text in lines if sign in f" {own}") for own in "-+")
            found.append(Edit(head.removeprefix("+++ ").strip(), old, new))
    return found


def follow(title: str, folder: Path, *, most_files: int) -> Path:
    """A copy of the source in which a recipe was followed."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "params.yaml", folder)
    steps = edits(title)
    assert 1 <= len({step.path for step in steps}) <= most_files
    for path, old, new in steps:
        text = (folder / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path}: {old}"
        (folder / path).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def run_in(folder: Path, program: str) -> str:
    """Runs Python code with the copy's source; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"import coma_gen; print(coma_gen.__file__)\n{program}"],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, _, output = done.stdout.partition("\n")
    assert Path(first).is_relative_to(folder)
    return output


def test_there_are_five_recipes() -> None:
    titles = re.findall(r"^## (Add .+)$", PAGE, re.MULTILINE)
    assert titles == [
        "Add a position scheme",
        "Add an optimizer",
        "Add a corpus",
        "Add a metric",
        "Add an output format",
    ]


def test_every_entry_of_a_registry_can_be_asked_for() -> None:
    named = {
        "model.attention_position": (ModelParams, "attention_position", POSITIONS),
        "download.corpus": (DownloadParams, "corpus", CORPORA),
    }
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for section, key, registry in named.values():
        assert set(get_args(section.model_fields[key].annotation)) == set(registry)
        line = next(line for line in params.splitlines() if line.startswith(f"  {key}:"))
        assert all(name in line for name in registry)


@pytest.mark.slow
def test_position(tmp_path: Path) -> None:
    folder = follow("Add a position scheme", tmp_path, most_files=3)
    run_in(
        folder,
        """
from pathlib import Path
import torch
from coma_gen.config.load import check_params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.model.conformer import Conformer
content = read_yaml(Path("params.yaml"))
small = dict(dim=16, num_layers=2, num_heads=2, head_dim=8, window_sizes=[4, 8], kernel_size=3, num_streams=2)
content["model"] |= {**small, "attention_position": "alibi"}
params = check_params(content).model
model = Conformer(params=params, vocab_size=11, seed=1).eval()
bias = model.blocks[0].get_submodule(
    next(name for name, _ in model.blocks[0].named_modules() if name.endswith("position_bias"))
)
assert bias(3).tolist() == [[0, 0, 0, 0], [-0.25, -0.0625, -0.015625, -0.00390625],
                            [-0.5, -0.125, -0.03125, -0.0078125]]
ids = torch.tensor([[1, 5, 2, 7, 9, 3, 1, 4, 8, 2, 6, 10]])
with torch.no_grad():
    whole = model(ids)
    state = model.init_cache(1)
    parts = torch.cat([model(chunk, state) for chunk in ids.split(5, dim=1)], dim=1)
    other = Conformer(params=params.model_copy(update={"attention_position": "none"}), vocab_size=11, seed=1)
assert torch.allclose(whole, parts, atol=1e-5) and not torch.allclose(whole, other.eval()(ids), atol=1e-3)
model.train()(ids).sum().backward()
assert bias.slopes.grad is None
""",
    )


@pytest.mark.slow
def test_optimizer(tmp_path: Path) -> None:
    folder = follow("Add an optimizer", tmp_path, most_files=2)
    run_in(
        folder,
        """
from pathlib import Path
import torch
from coma_gen.config.load import check_params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.model.conformer import Conformer
from coma_gen.training.optimizer import build_optimizers, optimizer_tensors, restore_optimizers
content = read_yaml(Path("params.yaml"))
small = dict(dim=16, num_layers=1, num_heads=2, head_dim=8, window_sizes=[4], kernel_size=3, num_streams=2)
content["model"] |= small
content["train"] |= {"optimizer": "nadam"}
params = check_params(content)
model = Conformer(params=params.model, vocab_size=11, seed=1)
(optimizer,) = built = build_optimizers(model, params.train)
ids = torch.tensor([[1, 5, 2, 7, 9, 3]])
def loss():
    return torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
before = loss()
for _ in range(5):
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
assert type(optimizer).__name__ == "NAdam" and loss() < before
owned = {p for group in optimizer.param_groups for p in group["params"]}
assert owned == {p for p in model.parameters() if p.requires_grad}
other = build_optimizers(model, params.train)
restore_optimizers(other, model, optimizer_tensors(built, model))
assert optimizer_tensors(other, model).keys() == optimizer_tensors(built, model).keys() != set()
""",
    )


def test_corpus(tmp_path: Path) -> None:
    folder = follow("Add a corpus", tmp_path, most_files=2)
    run_in(
        folder,
        """
from pathlib import Path
from coma_gen.config.load import check_params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.artifact import verify_artifact
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.split import split_corpus
content = read_yaml(Path("params.yaml"))
content["download"] |= {"corpus": "scales"}
params = check_params(content)
here = Path.cwd()
metrics = build_corpus(params.download, here / "corpus", cache=here / "cache", own_folder=here)
assert (metrics["corpus"], metrics["performances"]) == ("scales", 12)
assert verify_artifact(here / "corpus", kind="corpus").settings == {"corpus": "scales"}
split = split_corpus(params.split, here / "corpus", here / "split")
assert split["train"]["performances"] == 10 and split["test"]["notes"] == 8
""",
    )


def test_metric(tmp_path: Path) -> None:
    folder = follow("Add a metric", tmp_path, most_files=1)
    run_in(
        folder,
        """
from coma_gen.evaluation.music_metrics import measure_all
from coma_gen.midi.notes import Notes
found = measure_all([Notes.of([0, 1, 2, 3], [1] * 4, [40, 50, 59, 60], [64] * 4)])
assert found["bass_share"].tolist() == [0.75] and len(found) == 15
""",
    )


@pytest.mark.slow
def test_output_format(tmp_path: Path) -> None:
    folder = follow("Add an output format", tmp_path, most_files=1)
    run_in(
        folder,
        """
from pathlib import Path
import soundfile
from coma_gen.audio.synth import write_sound
from coma_gen.midi.notes import Notes
write_sound(Path("tone.aiff"), Notes.of([0.0], [0.5], [60], [64]))
assert soundfile.info("tone.aiff").format == "AIFF" and soundfile.info("tone.aiff").duration > 0.5
""",
    )
