"""Every file of every artifact: changed, truncated, missing or added files are rejected by all readers."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coma_gen.config.load import load_params
from coma_gen.config.schema import TokenizerParams
from coma_gen.core.artifact import MANIFEST, read_manifest, verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.split import split_corpus
from coma_gen.evaluation.baseline import score_baselines
from coma_gen.evaluation.stage import score_model
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.stage import write_samples
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import load_model, save_model
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.stage import write_shards
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.stage import fit_tokenizer
from coma_gen.training.stage import train_stage
from coma_gen.workspace.paths import Workspace
from faults.budgets import BOTH_FORMS, Form
from faults.corruptions import DAMAGES, flip
from faults.settings import DOWNLOAD, SPLIT, TOKENIZER

Tally = Callable[[str, str, int], None]
ROOT = Path(__file__).resolve().parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SMALL = {
    "dim": 8,
    "num_layers": 1,
    "num_heads": 1,
    "head_dim": 4,
    "window_sizes": (8,),
    "num_streams": 1,
    "kernel_size": 3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages write, from corpus to model, in little."""
    data = tmp_path_factory.mktemp("data")
    build_corpus(DOWNLOAD, data / "corpus", cache=data, own_folder=data)
    split_corpus(SPLIT, data / "corpus", data / "split")
    fit_tokenizer(
        TokenizerParams.model_validate(TOKENIZER), data / "split", data / "corpus", data / "tokenizer"
    )
    write_shards(
        PARAMS.shard, data / "split", data / "corpus", data / "tokenizer", data / "shards", workers=1
    )
    tokens, shards = (read_manifest(data / kind, kind=kind) for kind in ("tokenizer", "shards"))
    params = PARAMS.model.model_copy(update=SMALL)
    model = Conformer(params=params, vocab_size=tokens.settings["vocab_size"], seed=0)
    made_from = {"tokenizer": tokens.digest, "shards": shards.digest}
    save_model(data / "model", model, made_from=made_from, tokenizer=data / "tokenizer")
    return data


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


def evaluate(data: Path) -> None:
    score_model(PARAMS.evaluate, data / "model", data / "shards", data / "out", device="cpu", threads=1)


def sample(data: Path) -> None:
    args = (data / name for name in ("model", "split", "corpus", "out"))
    write_samples(PARAMS.sample, *args, device="cpu", threads=1)


def train(data: Path) -> None:
    train_stage(
        PARAMS,
        shards=data / "shards",
        tokenizer=data / "tokenizer",
        init_from=None,
        resume=data / "resume",
        key="k",
        model=data / "out",
        curve=data / "curve.csv",
    )


def shard(data: Path) -> None:
    write_shards(PARAMS.shard, data / "split", data / "corpus", data / "tokenizer", data / "out", workers=1)


def fit(data: Path) -> None:
    params = TokenizerParams.model_validate({**TOKENIZER, "fidelity_performances": 100})
    fit_tokenizer(params, data / "split", data / "corpus", data / "out")


def baseline(data: Path) -> None:
    score_baselines(PARAMS.baseline, data / "shards", data / "tokenizer", resamples=100)


READERS: dict[str, list[Callable[[Path], Any]]] = {
    "corpus": [lambda data: split_corpus(SPLIT, data / "corpus", data / "out")],
    "split": [fit, shard, sample],
    "tokenizer": [lambda data: Tokenizer.load(data / "tokenizer"), shard, baseline, train],
    "shards": [lambda data: ShardedSplit.open(data / "shards", "train"), baseline, train, evaluate],
    "model": [
        lambda data: load_model(data / "model"),
        lambda data: MusicGenerator.load(data / "model"),
        evaluate,
        sample,
    ],
}
"""Whoever reads an artifact: the reader that proves it, and the stages that go through it."""


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("kind", READERS)
def test_each_file_of_each_artifact(kind: str, copied: Path, tally: Tally) -> None:
    times = 0
    whole = copied.parent / "whole"
    shutil.copytree(copied / kind, whole)
    for number, path in enumerate([*files_of(copied / kind), copied / kind / "surplus.mid"]):
        for damage in DAMAGES if path.exists() else (Path.touch,):
            damage(path)
            # the first file is tried on each stage that reads the artifact, the others on the first reader
            for reader in READERS[kind] if number == 0 else READERS[kind][:1]:
                with pytest.raises(UserError) as caught:
                    reader(copied)
                text = str(caught.value)
                assert path.name in text or (path.name == MANIFEST and str(copied / kind) in text)
                assert not (copied / "out").exists() and "Traceback" not in text
                times += 1
            shutil.rmtree(copied / kind)
            shutil.copytree(whole, copied / kind)
    verify_artifact(copied / kind, kind=kind)
    tally(f"a file of the {kind} with a flipped bit, cut, emptied, lost, replaced by a pipe, or slipped in",
          "refused by name by whoever reads it", times)  # fmt: skip


def test_a_changed_performance_is_noticed_by_every_stage_that_reads_it(copied: Path, tally: Tally) -> None:
    for path in (copied / "corpus").rglob("*.midi"):
        flip(path)
    for stage in (fit, shard, sample):
        with pytest.raises(UserError, match=r"\.midi: must be the file that the split was made from"):
            stage(copied)
        assert not (copied / "out").exists()
    tally("a MIDI file that changed after the split", "refused by fit_tokenizer, shard and sample", 3)


RESULTS = ("corpus", "tokenizer", "model", "samples", "evaluation", "report")


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("report", "samples"), ("report", "evaluation"), *(("track", kind) for kind in RESULTS)],
)
def test_the_last_stages_read_nothing_that_changed(
    stage: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.syspath_prepend(ROOT / "stages")
    run = runpy.run_path(str(ROOT / "stages" / f"{stage}.py"))[stage]
    for damage in DAMAGES:
        data = tmp_path / damage.__name__ / "data"
        for each in RESULTS:
            (data / each).mkdir(parents=True)
            (data / each / "a.csv").write_text(each)
            write_manifest(data / each, kind=each, made_from={}, settings={})
        damage(data / kind / "a.csv")
        with pytest.raises(UserError, match=rf"{kind}/a\.csv"):
            run(PARAMS, Workspace(data.parent, data.parent))
    tally(f"a changed file in data/{kind}", f"refused by {stage}", len(DAMAGES))


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_every_bit_of_a_manifest(form: Form, copied: Path, tally: Tally) -> None:
    path = copied / "tokenizer" / MANIFEST
    content = path.read_bytes()
    bits = range(0, 8 * len(content), 2 * form.every - 1)
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UserError):
            read_manifest(copied / "tokenizer", kind="tokenizer")
    tally("any bit of a manifest flipped", "refused", len(bits))


def forged(path: Path, **changes: Any) -> None:
    """A manifest that was changed by somebody who worked its digest out again."""
    content = json.loads(path.read_bytes())
    content.pop("digest")
    content |= changes

    def text(value: Any) -> str:
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    content["digest"] = sha256_bytes(text(content).encode())
    path.write_text(text(content))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../../../etc/passwd": "0" * 64}},
        {"files": {"/etc/passwd": "0" * 64}},
        {"files": {"a": 3}},
        {"files": [["a", "b"]]},
        {"files": None},
        {"made_from": {"split": 3}},
        {"made_from": "text"},
        {"settings": 3},
        {"kind": None},
        {"format": 1},
        {"format": "2"},
        {"more": 1},
    ],
)
def test_a_forged_manifest_reads_nothing_outside(changes: dict[str, Any], copied: Path, tally: Tally) -> None:
    forged(copied / "tokenizer" / MANIFEST, **changes)
    with pytest.raises(UserError):
        verify_artifact(copied / "tokenizer", kind="tokenizer")
    tally("a forged manifest", "refused; nothing outside of its folder is read", 1)


class TestPartsThatDoNotBelongTogether:
    def test_are_refused_with_what_differs(self, copied: Path, tally: Tally) -> None:
        other = copied.parent / "other"
        params = TokenizerParams.model_validate({**TOKENIZER, "velocities": 16})
        fit_tokenizer(params, copied / "split", copied / "corpus", other)
        for stage in (baseline, train):
            shutil.rmtree(copied / "tokenizer")
            shutil.copytree(other, copied / "tokenizer")
            with pytest.raises(UserError, match="tokenizer"):
                stage(copied)
        shutil.rmtree(copied / "shards")
        shard(copied)
        (copied / "out").rename(copied / "shards")
        with pytest.raises(UserError, match=r"(?s)model.*must have been trained on the tokens of"):
            evaluate(copied)
        tally("tokenizer, shards and weights of different runs", "refused with what differs", 3)

    def test_weights_with_another_tokenizer_beside_them(self, copied: Path, tally: Tally) -> None:
        manifest = read_manifest(copied / "model", kind="model")
        params = TokenizerParams.model_validate({**TOKENIZER, "velocities": 16})
        shutil.rmtree(copied / "model" / "tokenizer")
        fit_tokenizer(params, copied / "split", copied / "corpus", copied / "model" / "tokenizer")
        (copied / "model" / MANIFEST).unlink()
        write_manifest(
            copied / "model", kind="model", made_from=manifest.made_from, settings=manifest.settings
        )
        with pytest.raises(UserError, match="must hold the tokenizer that its weights were trained with"):
            MusicGenerator.load(copied / "model")
        tally("a tokenizer that does not belong to the weights", "refused with both digests", 1)
