"""Distillation: the loss by hand and by torch, and that a teacher changes nothing else of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_corpus import Made, make
from torch import Tensor
from torch.nn import functional

from coma_gen.config.load import load_params
from coma_gen.config.rules import check_teacher
from coma_gen.config.schema import Params
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import UserError
from coma_gen.model.conformer import Conformer
from coma_gen.training.batches import Batch
from coma_gen.training.distillation import Teacher, load_teacher
from coma_gen.training.gradients import accumulate_gradient, add_gradient
from coma_gen.training.loss import sum_cross_entropy
from coma_gen.training.recorded import RecordedGradient, try_recording
from coma_gen.training.stage import train_stage
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.preflight import check_paths

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
DRY = dict.fromkeys(("embedding_dropout", "attention_dropout", "ff_dropout", "conv_dropout"), 0.0)
PRETRAINED = ROOT / "pretrained" / "model"
NAMES = ("density", "loudness")


class Fixed(torch.nn.Module):
    """Gives the same logits (V,) at every position."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.logits.expand(*input_ids.shape, -1)


def test_the_loss_by_hand() -> None:
    """The student gives 3/4 and 1/4 (at temperature 2 as sqrt(3) to 1), the teacher 1/2 and 1/2."""
    teacher, targets = Teacher(Fixed(0.0, 0.0), weight=0.25, temperature=2.0), torch.tensor([[0, -100]])
    logits = torch.tensor([math.log(3.0), 0.0]).expand(1, 2, 2)
    soft_targets = teacher.compute_soft_targets(torch.zeros(1, 2, dtype=torch.int64), bf16=False)
    assert soft_targets.tolist() == [[[0.5, 0.5]] * 2]
    loss = teacher.distill(sum_cross_entropy(logits, targets), logits, targets, soft_targets)
    soft = math.log(1 + math.sqrt(3)) - math.log(3) / 4
    assert float(loss) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * 4 * soft, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_loss_and_its_gradient_are_those_of_torch(weight: float, temperature: float) -> None:
    """The cross-entropy with a distribution is the KL divergence from it and its own entropy."""
    draws = torch.Generator().manual_seed(0)
    student, theirs = torch.randn(2, 3, 5, 7, generator=draws, dtype=torch.float64)
    targets = torch.randint(7, (3, 5), generator=draws)
    targets[0, 3:] = targets[2, 1:] = -100
    teacher = Teacher(Fixed(), weight, temperature)
    results = []
    for is_ours in (True, False):
        logits = student.clone().requires_grad_()
        nll = sum_cross_entropy(logits, targets)
        if is_ours:
            loss = teacher.distill(nll, logits, targets, functional.softmax(theirs / temperature, -1))
        else:
            rows = targets != -100
            ours, wanted = (functional.log_softmax(each[rows] / temperature, -1) for each in (logits, theirs))
            divergence = functional.kl_div(ours, wanted, reduction="sum", log_target=True)
            entropy = -(wanted.exp() * wanted).sum()
            loss = (1 - weight) * nll + weight * temperature**2 * (divergence + entropy)
        results.append((loss.detach(), *torch.autograd.grad(loss, logits)))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


def test_a_teacher_without_weight_changes_no_bit(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str
) -> None:
    result = trainer.train(tmp_path / "none", teacher=trainer.make_teacher(weight=0.0))
    assert trainer.digest(result) == uninterrupted
    assert trainer.digest(trainer.train(tmp_path / "some", teacher=trainer.make_teacher())) != uninterrupted


def test_a_student_approaches_its_teacher_which_stays_as_it_is(trainer: ModuleType, tmp_path: Path) -> None:
    teacher = trainer.make_teacher(weight=1.0)
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    ids = torch.from_numpy(trainer.TRAIN[2][None, :48].astype("int64"))

    def divergence(model: Conformer) -> float:
        with torch.no_grad():
            ours, theirs = (functional.log_softmax(each(ids), -1) for each in (model.eval(), teacher.model))
        return float(functional.kl_div(ours, theirs, reduction="sum", log_target=True) / ids.numel())

    student = trainer.make_model(**DRY)
    start = divergence(student)
    settings = {"steps": 60, "learning_rate": 0.02, "validate_every": 60, "checkpoint_every": 60}
    trainer.train(tmp_path, model=student, teacher=teacher, **settings)
    assert start > 0.3 and divergence(student) < 0.4 * start
    for name, value in teacher.model.named_parameters():
        assert value.grad is None and torch.equal(value, before[name])


def windows() -> Batch:
    """Four windows, of which two are shorter than the others."""
    ids = torch.randint(3, 12, (4, 9), generator=torch.Generator().manual_seed(2))
    targets = ids[:, 1:].clone()
    targets[1, 2:] = targets[3, 6:] = -100
    return Batch(ids[:, :-1].contiguous(), targets, int((targets != -100).sum()))


@pytest.mark.parametrize(("micro_batches", "is_recorded"), [(2, False), (4, False), (1, True), (2, True)])
def test_how_a_step_is_cut_and_recorded_changes_nothing(
    trainer: ModuleType, micro_batches: int, is_recorded: bool
) -> None:
    model, teacher = trainer.make_model(**DRY).double(), trainer.make_teacher(temperature=2.0)
    teacher.model.double()

    def gradient(micro_batches: int, is_recorded: bool) -> list[Tensor]:
        def run_again(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
            result = work()
            return lambda: result.copy_(work()) and None, result

        chosen = None
        if is_recorded:
            add = partial(add_gradient, model, bf16=False, teacher=teacher)
            shape = (4 // micro_batches, 8)
            chosen = try_recording(add, shape=shape, pad_id=0, device=CPU, record=run_again)
            assert isinstance(chosen, RecordedGradient)
        model.zero_grad(set_to_none=not is_recorded)
        settings: dict[str, Any] = {"seed": 0, "step": 1, "device": CPU, "bf16": False}
        nlls = accumulate_gradient(
            model, windows(), micro_batches=micro_batches, add=chosen, teacher=teacher, **settings
        )
        with torch.no_grad():
            expected = sum_cross_entropy(model(windows().input_ids), windows().targets)
        assert sum(map(float, nlls)) == pytest.approx(float(expected)), "the curve has the nll of the targets"
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    for ours, expected in zip(gradient(micro_batches, is_recorded), gradient(1, False), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # imports of torch's compiler
def test_a_compiled_student_learns_from_a_teacher_that_runs_as_written(
    trainer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def stand_in(method: Callable[..., Any], **_: object) -> Callable[..., Any]:
        compiled.append(method.__self__)  # type: ignore[attr-defined]
        return method

    monkeypatch.setattr(torch, "compile", stand_in)
    teacher = trainer.make_teacher()
    plain, fast = (
        trainer.train(tmp_path / str(each), teacher=teacher, steps=4, compile=each) for each in (False, True)
    )
    assert trainer.digest(fast) == trainer.digest(plain)
    assert compiled and not set(compiled) & set(teacher.model.modules())


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(trainer: ModuleType, tmp_path: Path) -> None:
    calls: Iterator[int] = iter(range(100))

    class Stopped(Teacher):
        def compute_soft_targets(self, *args: Any, **options: Any) -> Tensor:
            if next(calls) == 11:  # the second micro-batch of step 6
                raise KeyboardInterrupt
            return super().compute_soft_targets(*args, **options)

    teacher = trainer.make_teacher()
    whole = trainer.digest(trainer.train(tmp_path / "whole", teacher=teacher))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(tmp_path / "stopped", teacher=Stopped(teacher.model, 0.5, 1.0))
    assert sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir())[-1][-1] == "4"
    assert trainer.digest(trainer.train(tmp_path / "stopped", teacher=teacher)) == whole


def test_a_teacher_with_conditions_gets_the_bins_of_the_student(trainer: ModuleType) -> None:
    model = trainer.make_model(conditions=NAMES).eval()
    for table in model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(1))
    teacher, ids = Teacher(model, 0.5, 1.0), windows().input_ids
    bins = torch.full((*ids.shape, 2), 5)
    with torch.no_grad():
        for conditions in (None, bins):
            expected = functional.softmax(model(ids, conditions=conditions), -1)
            assert torch.equal(teacher.compute_soft_targets(ids, conditions, bf16=False), expected)
    in_bf16 = teacher.compute_soft_targets(ids, bins, bf16=True)
    assert in_bf16.dtype == torch.float32 and not torch.equal(in_bf16, expected)
    torch.testing.assert_close(in_bf16, expected, rtol=0, atol=0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


class TestStage:
    def params(self, made: Made, **changes: Any) -> Params:
        """The params of a short run whose teacher is the model of `made`."""
        short = {
            "steps": 2,
            "warmup_steps": 1,
            "seq_len": 64,
            "validate_every": 2,
            "teacher": str(made.model),
        }
        digest = read_manifest(made.model, kind="model").digest
        train = made.params.train.model_copy(update={**short, "teacher_digest": digest, **changes})
        return made.params.model_copy(update={"train": train})

    def train(self, made: Made, params: Params, folder: Path) -> Path:
        """Runs the stage in a folder; returns the model that it wrote."""
        outs = {name: folder / name for name in ("resume", "model", "curve")}
        inputs = {"shards": made.shards, "tokenizer": made.tokenizer, "init_from": None}
        train_stage(params, **inputs, teacher=made.model, key="k", **outs)
        return outs["model"]

    def test_the_model_names_its_teacher(self, made: Made, tmp_path: Path) -> None:
        model = self.train(made, self.params(made), tmp_path)
        teacher = read_manifest(made.model, kind="model").digest
        assert read_manifest(model, kind="model").made_from["teacher"] == teacher

    def test_another_teacher_than_the_named_one_is_refused(self, made: Made, tmp_path: Path) -> None:
        digest = read_manifest(made.model, kind="model").digest
        for named in (None, "0" * 64):
            with pytest.raises(UserError) as caught:
                self.train(made, self.params(made, teacher_digest=named), tmp_path)
            message = str(caught.value)
            assert message.startswith("train.teacher_digest: ")
            assert (named or "null") in message and f"-S train.teacher_digest={digest}" in message
        assert not (tmp_path / "model").exists()

    def test_a_teacher_of_other_tokens_is_refused(self, made: Made) -> None:
        ours = read_manifest(made.model, kind="model").files["tokenizer/vocabulary.json"]
        with pytest.raises(UserError) as caught:
            load_teacher(made.model, self.params(made), vocabulary="f" * 64)
        message = str(caught.value)
        assert message.startswith("train.teacher: ")
        assert f"vocabulary {ours[:12]}" in message and f"vocabulary {'f' * 12}" in message
        assert "Use the tokenizer section" in message

    def test_it_is_loaded_frozen(self, made: Made) -> None:
        vocabulary = read_manifest(made.model, kind="model").files["tokenizer/vocabulary.json"]
        params = self.params(made, teacher_weight=0.25, teacher_temperature=2.0)
        teacher, digest = load_teacher(made.model, params, vocabulary=vocabulary)
        assert digest == params.train.teacher_digest and not teacher.model.training
        assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
        assert (teacher.weight, teacher.temperature) == (0.25, 2.0)


@pytest.mark.parametrize(
    ("student", "teacher", "where"),
    [
        ({}, {"conditions": ["density"]}, None),
        ({"conditions": NAMES}, {"conditions": list(NAMES)}, None),
        ({"conditions": NAMES}, {"conditions": ["density"]}, "model.conditions"),
        ({"conditions": NAMES}, {}, "model.conditions"),
        ({}, {"position_embedding": "learned", "max_seq_len": 256}, None),
        ({}, {"position_embedding": "learned", "max_seq_len": 255}, "train.seq_len"),
    ],
)
def test_which_models_can_teach_which(
    student: dict[str, Any], teacher: dict[str, Any], where: str | None
) -> None:
    params = load_params(ROOT / "params.yaml")
    train = params.train.model_copy(update={"teacher": "pretrained", "teacher_digest": "0" * 64})
    shape = json.loads((PRETRAINED / "config.json").read_text())["model"] | teacher
    model = params.model.model_copy(update=student)
    found = list(check_teacher("0" * 64, {"model": shape}, model, train))
    assert [fault.where for fault in found] == ([where] if where else [])


def test_settings_are_checked_against_the_teacher_before_any_stage_runs(tmp_path: Path) -> None:
    params, workspace = load_params(ROOT / "params.yaml"), Workspace.here(ROOT)
    digest = read_manifest(PRETRAINED, kind="model").digest

    def check(**changes: Any) -> None:
        check_paths(params.model_copy(update={"train": params.train.model_copy(update=changes)}), workspace)

    check(teacher="pretrained", teacher_digest=digest)
    check(teacher=str(PRETRAINED), teacher_digest=digest)
    with pytest.raises(UserError, match=rf"train.teacher_digest: .* -S train.teacher_digest={digest}"):
        check(teacher="pretrained")
    with pytest.raises(UserError, match=r"^train.teacher: .*/nowhere must be a folder of kind 'model'"):
        check(teacher=str(tmp_path / "nowhere"), teacher_digest=digest)
