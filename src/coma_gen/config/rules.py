"""Validation rules that involve several keys, or go beyond the type of a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from coma_gen.config.schema import (
    DownloadParams,
    EvaluateParams,
    ModelParams,
    RuntimeParams,
    SampleParams,
    Section,
    ShardParams,
    SplitParams,
    TokenizerParams,
    TrainParams,
)
from coma_gen.core.errors import Fault

Sections = Mapping[str, Section]
BEATS_PER_BAR = 4
SPECIAL_AND_BAR = 4
"""PAD, BOS, EOS and Bar."""
MAX_BASE_TOKENS = 9_000
"""Limit under BPE, which represents base tokens by the characters below its word prefix."""


def _split(split: SplitParams) -> Iterator[Fault]:
    if split.validation_fraction + split.test_fraction >= 1:
        got = f"{split.validation_fraction} + {split.test_fraction}"
        yield Fault(
            "split.validation_fraction", "with split.test_fraction must leave something to train on", got
        )
    both = sorted(set(split.composers_keep) & set(split.composers_drop))
    if both:
        yield Fault(
            "split.composers_drop", "must not name a composer of split.composers_keep", ", ".join(both)
        )


def _tokenizer(tokenizer: TokenizerParams) -> Iterator[Fault]:
    low, high = tokenizer.pitch_range
    if low >= high:
        yield Fault("tokenizer.pitch_range", "the lowest pitch must be below the highest", f"[{low}, {high}]")
    expected = 0
    for start, end, _ in tokenizer.duration_bins:
        if start != expected or end <= start:
            rule = f"each must begin where the one before ends (here at beat {expected}) and end later"
            yield Fault("tokenizer.duration_bins", rule, f"[{start}, {end}]")
            break
        expected = end
    for start, end, steps in tokenizer.duration_bins:
        if tokenizer.positions_per_beat % steps:
            rule = f"steps per beat must divide tokenizer.positions_per_beat ({tokenizer.positions_per_beat})"
            yield Fault("tokenizer.duration_bins", rule, f"{steps} in [{start}, {end}, {steps}]")
    base = base_vocab_size(tokenizer)
    if base > MAX_BASE_TOKENS:
        rule = f"must leave the base vocabulary at no more than {MAX_BASE_TOKENS} tokens"
        yield Fault("tokenizer.duration_bins", rule, str(base))
    elif tokenizer.vocab_size is not None and tokenizer.vocab_size <= base:
        rule = f"must exceed the base vocabulary, which has {base} tokens under these settings"
        yield Fault("tokenizer.vocab_size", rule, str(tokenizer.vocab_size), "raise it, or set null for none")


def base_vocab_size(tokenizer: TokenizerParams) -> int:
    """Returns the number of REMI tokens under these params, without BPE."""
    low, high = tokenizer.pitch_range
    durations = sum(max(0, end - start) * steps for start, end, steps in tokenizer.duration_bins)
    positions = BEATS_PER_BAR * tokenizer.positions_per_beat
    pedal = 2 if tokenizer.pedal == "tokens" else 0
    return SPECIAL_AND_BAR + max(0, high - low + 1) + tokenizer.velocities + durations + positions + pedal


def _shard(shard: ShardParams) -> Iterator[Fault]:
    factors = shard.tempo_factors
    if 1.0 in factors or len(set(factors)) != len(factors):
        yield Fault("shard.tempo_factors", "must differ from 1 and from each other", str(list(factors)))


def _model(model: ModelParams) -> Iterator[Fault]:
    if model.attention_position in ("rotary", "xpos") and model.head_dim % 2:
        yield Fault(
            "model.head_dim", f"must be even under {model.attention_position} positions", str(model.head_dim)
        )
    if model.ff_inner < 1:
        rule = f"times model.dim ({model.dim}) must come to a width of at least 1"
        yield Fault("model.ff_expansion", rule, str(model.ff_expansion))
    layers = model.global_attention_layers
    if len(set(layers)) != len(layers) or any(layer >= model.num_layers for layer in layers):
        rule = f"must name each of the blocks 0 to {model.num_layers - 1} at most once"
        yield Fault("model.global_attention_layers", rule, str(list(layers)))
    if len(set(model.conditions)) != len(model.conditions):
        yield Fault("model.conditions", "must name each at most once", str(list(model.conditions)))


def _train(train: TrainParams) -> Iterator[Fault]:
    rule = "must be an absolute path outside of data/, which DVC empties before a stage runs"
    if train.init_from is not None and not _outlives_a_stage(train.init_from):
        remedy = (
            "use `coma-gen finetune`, which copies the model; `dvc checkout` brings back one that is gone"
        )
        yield Fault("train.init_from", rule, train.init_from, remedy)
    if train.teacher not in (None, "pretrained") and not _outlives_a_stage(train.teacher):
        yield Fault("train.teacher", f"{rule}, or pretrained", train.teacher, "copy the model's folder")
    if train.streams == "bf16" != train.precision:
        rule = "must be fp32 where train.precision is fp32"
        yield Fault("train.streams", rule, "bf16", "set train.precision: bf16 as well")
    if train.warmup_steps >= train.steps:
        yield Fault(
            "train.warmup_steps", f"must be less than train.steps ({train.steps})", str(train.warmup_steps)
        )


def _outlives_a_stage(folder: str) -> bool:
    return Path(folder).is_absolute() and not Path(folder).is_relative_to(Path.cwd() / "data")


def check_teacher(
    digest: str, settings: Mapping[str, Any], model: ModelParams, train: TrainParams
) -> Iterator[Fault]:
    """Yields the faults of a teacher that is not the named one or does not fit the student.

    Args:
        digest: Digest of the teacher's manifest.
        settings: Settings of that manifest, which are the teacher's config.
        model: Shape of the student.
        train: Settings of the run.
    """
    if digest != train.teacher_digest:
        rule = f"must be the digest of the model that train.teacher names ({train.teacher})"
        remedy = f"-S train.teacher_digest={digest} trains with the one that is there"
        yield Fault("train.teacher_digest", rule, train.teacher_digest or "null", remedy)
    teacher = settings["model"]
    conditions = list(teacher.get("conditions", ()))
    if model.conditions and list(model.conditions) != conditions:
        rule = f"must be [] or those of train.teacher ({', '.join(conditions) or 'none'})"
        yield Fault("model.conditions", rule, str(list(model.conditions)))
    if teacher["position_embedding"] == "learned" and train.seq_len > teacher["max_seq_len"]:
        rule = f"must not exceed {teacher['max_seq_len']}, the learned position embedding of train.teacher"
        yield Fault("train.seq_len", rule, str(train.seq_len))


def _model_and_train(model: ModelParams, train: TrainParams) -> Iterator[Fault]:
    if max(model.window_sizes) > train.seq_len:
        rule = f"must not be longer than train.seq_len ({train.seq_len}), or the rest is never trained"
        yield Fault("model.window_sizes", rule, str(list(model.window_sizes)))
    if model.position_embedding == "learned" and train.seq_len > model.max_seq_len:
        rule = f"must not exceed model.max_seq_len ({model.max_seq_len}) under a learned position embedding"
        yield Fault("train.seq_len", rule, str(train.seq_len))


def _processes(runtime: RuntimeParams, model: ModelParams, train: TrainParams) -> Iterator[Fault]:
    if runtime.processes != "auto":
        yield from check_world_size(runtime.processes, model, train)


def check_world_size(processes: int, model: ModelParams, train: TrainParams) -> Iterator[Fault]:
    """Yields a fault if a step cannot be divided evenly among the processes.

    Each process computes an equal number of micro-batches or an equal part of one. A part would draw
    different dropout masks than the whole micro-batch, so it is allowed without dropout only.
    """
    batch = train.micro_batch * train.grad_accum_steps
    if processes > 1 and train.cuda_graphs:
        yield Fault("train.cuda_graphs", "must be false where several processes share a step", "true")
    whole = train.grad_accum_steps % processes == 0
    even = batch % processes == 0
    parted = even and processes % train.grad_accum_steps == 0
    dropout = [name for name in ModelParams.model_fields if name.endswith("dropout") and getattr(model, name)]
    if whole or (parted and not dropout):
        return
    rule = f"must divide train.grad_accum_steps ({train.grad_accum_steps})"
    if parted:
        rule += f" where there is dropout (model.{dropout[0]})"
    else:
        rule += f", or be a multiple of it that divides the {batch} windows of a step"
    same = f"train.micro_batch={batch // processes}, train.grad_accum_steps={processes}"
    yield Fault("runtime.processes", rule, str(processes), f"{same} takes the same windows" if even else "")


def _evaluate(evaluate: EvaluateParams) -> Iterator[Fault]:
    if evaluate.stride > evaluate.window:
        rule = f"must not exceed evaluate.window ({evaluate.window}), or some tokens are never scored"
        yield Fault("evaluate.stride", rule, str(evaluate.stride))


def _model_and_evaluate(model: ModelParams, evaluate: EvaluateParams) -> Iterator[Fault]:
    if model.position_embedding == "learned" and evaluate.window > model.max_seq_len:
        rule = f"must not exceed model.max_seq_len ({model.max_seq_len}) under a learned position embedding"
        yield Fault("evaluate.window", rule, str(evaluate.window))


def _sample(sample: SampleParams) -> Iterator[Fault]:
    if sample.unprompted + sample.prompted == 0:
        yield Fault("sample.unprompted", "with sample.prompted must ask for at least one sample", "0 + 0")


def _download(download: DownloadParams) -> Iterator[Fault]:
    if download.path.startswith("~") or not download.path.strip():
        yield Fault("download.path", "must be a folder's path, written out without ~", repr(download.path))


RULES: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Fault]]], ...] = (
    (("download",), _download),
    (("split",), _split),
    (("tokenizer",), _tokenizer),
    (("shard",), _shard),
    (("model",), _model),
    (("train",), _train),
    (("model", "train"), _model_and_train),
    (("evaluate",), _evaluate),
    (("model", "evaluate"), _model_and_evaluate),
    (("runtime", "model", "train"), _processes),
    (("sample",), _sample),
)
"""(names of the sections that a rule takes, rule)."""


def broken_rules(sections: Sections) -> list[Fault]:
    """Returns the faults of all rules whose sections are present and valid."""
    return [
        fault
        for names, rule in RULES
        if all(name in sections for name in names)
        for fault in rule(*(sections[name] for name in names))
    ]
