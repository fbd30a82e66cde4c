"""Training with conditions: the model learns their meaning, and resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from small_corpus import make, played
from tiny_music import PAD, bar, piece, vocabulary

from coma_gen.core.errors import UserError
from coma_gen.generation.controls import Controls
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import save_model
from coma_gen.shards.conditions import WindowConditions
from coma_gen.tokenizer.conditions import ConditionTables
from coma_gen.training.batches import Batch
from coma_gen.training.gradients import accumulate_gradient, add_gradient
from coma_gen.training.loss import sum_nll
from coma_gen.training.recorded import RecordedGradient
from coma_gen.training.stage import _load_initial_weights, train_stage

CPU = torch.device("cpu")
NAMES = ("density", "loudness")
TOLD = WindowConditions(ConditionTables.from_vocabulary(vocabulary(), NAMES))
DENSE, SPARSE, LOUD = bar(6), bar(2), bar(2, velocity=90)


def music(blocks: int, seed: int) -> list[np.ndarray]:
    """A piece whose blocks of 4 bars are dense, sparse or loud by chance."""
    kinds = np.random.default_rng(seed).integers(3, size=blocks)
    return [piece(*[(DENSE, SPARSE, LOUD)[kind] for kind in kinds for _ in range(4)])]


MUSIC = {"train_pieces": music(60, 1), "validation_pieces": music(6, 2), "augment": False}
LEARNING = {
    "steps": 150,
    "seq_len": 64,
    "learning_rate": 0.02,
    "validate_every": 150,
    "checkpoint_every": 150,
}


def test_it_learns_what_it_is_told(trainer: ModuleType, tmp_path: Path) -> None:
    model = trainer.make_model(conditions=NAMES, embedding_dropout=0.0)
    trainer.train(tmp_path, model=model, conditions=TOLD, **MUSIC, **LEARNING)
    model.eval()

    def nats(bars: list[int], told: list[int] | None) -> float:
        """Of four bars behind four others, where both are told something."""
        before = [1, *DENSE * 4] if bars is not DENSE else [1, *SPARSE * 4]
        ids = torch.tensor([[*before, *bars * 4]])
        targets = torch.where(torch.arange(ids.shape[1] - 1) >= len(before), ids[:, 1:], -100)
        conditions = None
        if told is not None:
            conditions = torch.zeros((*ids.shape, 2), dtype=torch.int64)[:, :-1]
            conditions[:, len(before) - 1 :] = torch.tensor(told)
        with torch.no_grad():
            return float(sum_nll(model, ids[:, :-1], targets, bf16=False, conditions=conditions))

    bins = {name: TOLD.tables.compute_bins([1, *of * 4, 2])[1].tolist() for name, of in _KINDS.items()}
    for name, bars in _KINDS.items():
        right = nats(bars, bins[name])
        wrong = [nats(bars, bins[other]) for other in _KINDS if other != name]
        assert right < min(nats(bars, None), *wrong)


_KINDS = {"dense": DENSE, "sparse": SPARSE, "loud": LOUD}


def test_a_run_that_was_stopped_is_told_the_same(trainer: ModuleType, tmp_path: Path) -> None:
    def run(name: str, **changes: object) -> str:
        model = trainer.make_model(conditions=NAMES)
        settings = {"seq_len": 64, "steps": 6, "model": model, "conditions": TOLD} | MUSIC | changes
        return str(trainer.digest(trainer.train(tmp_path / name, **settings)))

    class Stopped(WindowConditions):
        def draw(self, *windows: np.ndarray, step: int, **index: int) -> np.ndarray:  # type: ignore[override]
            if step > 4:
                raise KeyboardInterrupt
            return super().draw(*windows, step=step, **index)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", conditions=Stopped(TOLD.tables))
    assert run("stopped") == whole
    assert run("untold", conditions=None) != whole


def test_how_a_step_is_cut_and_recorded_changes_nothing(trainer: ModuleType) -> None:
    draws = np.random.default_rng(0)
    ids = torch.from_numpy(draws.integers(3, 12, (4, 9)))
    told = torch.from_numpy(draws.integers(0, 17, (4, 8, 2)))
    batch = Batch(ids[:, :-1], ids[:, 1:], 32, told)
    dry = dict.fromkeys(("embedding_dropout", "attention_dropout", "ff_dropout", "conv_dropout"), 0.0)
    model = trainer.make_model(conditions=NAMES, **dry).double()
    for table in model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(1))

    def gradient(micro_batches: int, recorded: bool) -> list[torch.Tensor]:
        def add(*given: torch.Tensor) -> torch.Tensor:
            return add_gradient(model, *given, bf16=False)

        chosen = add
        if recorded:
            nll = torch.zeros((), dtype=torch.float64)
            chosen = RecordedGradient(
                add,
                shape=(4 // micro_batches, 8),
                pad_id=PAD,
                device=CPU,
                record=lambda work: (lambda: nll.copy_(work()), nll),
                conditions=2,
            )
        model.zero_grad(set_to_none=True)
        accumulate_gradient(
            model, batch, micro_batches=micro_batches, seed=0, step=1, device=CPU, bf16=False, add=chosen
        )
        return [parameter.grad.clone() for parameter in model.parameters()]

    whole = gradient(1, recorded=False)
    for micro_batches, recorded in ((2, False), (1, True), (4, True)):
        for ours, expected in zip(gradient(micro_batches, recorded), whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture
def written(tmp_path: Path, trainer: ModuleType) -> tuple[Path, Conformer]:
    """A model without conditions beside its tokenizer."""
    (tmp_path / "tokenizer").mkdir()
    vocabulary().save(tmp_path / "tokenizer")
    model = trainer.make_model()
    save_model(tmp_path / "model", model, made_from={}, tokenizer=tmp_path / "tokenizer")
    return tmp_path / "model", model


def test_it_begins_from_a_model_that_was_not_told(
    written: tuple[Path, Conformer], trainer: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    from coma_gen.core.artifact import read_manifest

    folder, plain = written
    digest = read_manifest(folder, kind="model").files["tokenizer/vocabulary.json"]
    model = trainer.make_model(conditions=NAMES).eval()
    with torch.no_grad():
        model.logits.weight.zero_()
    _load_initial_weights(model, folder, digest)
    assert caplog.messages == ["train.init_from: has no embeddings of density, loudness, which start at zero"]
    ids = torch.arange(3, 12)[None]
    told = torch.full((1, 9, 2), 5)
    assert torch.equal(model(ids, conditions=told), plain.eval()(ids))
    save_model(folder, model, made_from={}, tokenizer=folder.parent / "tokenizer")
    with pytest.raises(UserError, match=r"model.conditions: must name loudness, as in train.init_from"):
        _load_initial_weights(trainer.make_model(conditions=("density",)), folder, digest)


def test_the_stage_goes_on_from_a_model_without_and_what_it_writes_can_be_asked(tmp_path: Path) -> None:
    made = make(tmp_path)
    changes = {"steps": 3, "warmup_steps": 1, "seq_len": 256, "validate_every": 3, "learning_rate": 0.01}
    params = made.params.model_copy(
        update={
            "model": made.params.model.model_copy(update={"conditions": NAMES}),
            "train": made.params.train.model_copy(update=changes),
        }
    )
    train_stage(
        params,
        shards=made.shards,
        tokenizer=made.tokenizer,
        init_from=made.model,
        resume=tmp_path / "resume",
        key="k",
        model=tmp_path / "told",
        curve=tmp_path / "curve.csv",
    )
    composer = MusicGenerator.load(tmp_path / "told")
    assert composer.loaded.model.params.conditions == NAMES
    told = composer.loaded.model.condition_embeddings["density"].weight
    assert not told[0].any() and told[1:].any()
    settings = {"seconds": 2.0, "sampling": SamplingParams(), "seed": 0, "max_tokens": 60, "desc": None}
    (piece,) = generate_batch(composer, [played(1)], controls=Controls(target="density=4"), **settings)
    assert piece.valid
