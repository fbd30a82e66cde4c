"""The settings as types: one frozen section for each part of params.yaml, every key explicit, unknown keys
refused.

A section can refuse a value but never change one, and holds no defaults: what is not in params.yaml does not
exist. Units and ranges stand in the field's rule, which is what a person is told.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Count = Annotated[StrictInt, Field(ge=1, le=2**31)]
Fraction = Annotated[Float, Field(gt=0, lt=1)]
Dropout = Annotated[Float, Field(ge=0, lt=1)]
Positive = Annotated[Float, Field(gt=0, le=1e9)]
Minutes = Annotated[Float, Field(gt=0, le=36_000)]
Sha256 = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
Composers = tuple[StrictStr, ...]
CONDITIONS = ("density", "loudness", "register", "polyphony")
"""What a model may be told of coming bars; `tokenizer.conditions` measures it."""
CONDITION_BINS = 16
"""Values of a condition that a model tells apart, beside "not told"."""


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RuntimeParams(Section):
    """How the numeric stages run."""

    threads: Annotated[StrictInt, Field(ge=1, le=1024)]
    pin_cpu: StrictBool
    device: Literal["cpu", "cuda", "mps", "auto"]
    processes: Annotated[StrictInt, Field(ge=1, le=64)] | Literal["auto"]


class DownloadParams(Section):
    """Where the corpus comes from."""

    corpus: Literal["maestro-mini", "maestro", "synthetic", "folder"]
    path: Annotated[StrictStr, Field(min_length=1)]
    maestro_url: Annotated[StrictStr, Field(pattern=r"^(https://|http://(127\.0\.0\.1|localhost)[:/])")]
    maestro_sha256: Sha256
    synthetic_performances: Annotated[StrictInt, Field(ge=3, le=1_000_000)]
    synthetic_seconds: Annotated[Float, Field(ge=5, le=3600)]
    synthetic_seed: Seed


class SplitParams(Section):
    """How performances are divided into train, validation and test."""

    method: Literal["official", "by-composition", "by-file"]
    validation_fraction: Fraction
    test_fraction: Fraction
    seed: Seed
    composers_keep: Composers
    composers_drop: Composers
    composers_top: Count | None
    composers_top_by: Literal["hours", "compositions"]
    max_unreadable: Annotated[StrictInt, Field(ge=0, le=2**31)]


class TokenizerParams(Section):
    """What REMI writes down of the music, and how finely."""

    positions_per_beat: Annotated[StrictInt, Field(ge=1, le=96)]
    duration_bins: Annotated[
        tuple[tuple[Annotated[StrictInt, Field(ge=0)], Count, Annotated[StrictInt, Field(ge=1, le=96)]], ...],
        Field(min_length=1),
    ]
    velocities: Annotated[StrictInt, Field(ge=1, le=127)]
    pitch_range: tuple[Annotated[StrictInt, Field(ge=0, le=127)], Annotated[StrictInt, Field(ge=0, le=127)]]
    pedal: Literal["extend", "tokens", "ignore"]
    vocab_size: Annotated[StrictInt, Field(ge=2, le=65_000)] | None
    fidelity_performances: Count
    max_onset_rms_ms: Positive
    max_end_ratio_error: Positive


class ShardParams(Section):
    """How tokens are laid on disk, and which variations of the train split there are."""

    transpose: Annotated[StrictInt, Field(ge=0, le=11)]
    velocity_shift: Annotated[StrictInt, Field(ge=0, le=8)]
    tempo_factors: tuple[Annotated[Float, Field(ge=0.5, le=2.0)], ...]
    tokens_per_file: Annotated[StrictInt, Field(ge=1024, le=2**31)]


class ModelParams(Section):
    """The shape of the model."""

    branches: Annotated[
        tuple[Literal["half_feed_forward", "feed_forward", "attention", "convolution"], ...],
        Field(min_length=1, max_length=64),
    ]
    dim: Annotated[StrictInt, Field(ge=2, le=65_536)]
    num_layers: Annotated[StrictInt, Field(ge=1, le=1024)]
    num_heads: Annotated[StrictInt, Field(ge=1, le=1024)]
    head_dim: Annotated[StrictInt, Field(ge=1, le=4096)]
    window_sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    attention_position: Literal["xpos", "rotary", "dynamic", "none"]
    position_embedding: Literal["none", "learned"]
    max_seq_len: Count
    qk_rmsnorm: StrictBool
    num_streams: Annotated[StrictInt, Field(ge=1, le=64)]
    global_attention_layers: tuple[Annotated[StrictInt, Field(ge=0)], ...]
    kernel_size: Annotated[StrictInt, Field(ge=1, le=65_536)]
    conv_expansion: Annotated[StrictInt, Field(ge=1, le=64)]
    ff_expansion: Annotated[Float, Field(gt=0, le=64)]
    embedding_dropout: Dropout
    attention_dropout: Dropout
    ff_dropout: Dropout
    conv_dropout: Dropout
    conditions: tuple[Literal["density", "loudness", "register", "polyphony"], ...]

    @property
    def ff_inner(self) -> int:
        """Width between the two matrices of a feed-forward."""
        return round(self.ff_expansion * self.dim)


class TrainParams(Section):
    """The optimization."""

    seed: Seed
    seq_len: Annotated[StrictInt, Field(ge=2, le=2**24)]
    micro_batch: Count
    grad_accum_steps: Count
    steps: Count
    max_minutes: Positive | None
    optimizer: Literal["muon", "adamw"]
    muon_learning_rate: Annotated[Float, Field(gt=0, le=10)]
    muon_momentum: Annotated[Float, Field(ge=0, lt=1)]
    muon_weight_decay: Annotated[Float, Field(ge=0, le=100)]
    learning_rate: Annotated[Float, Field(gt=0, le=10)]
    embedding_rate_ratio: Annotated[Float, Field(gt=0, le=1000)]
    schedule: Literal["linear", "cosine"]
    decay_fraction: Annotated[Float, Field(gt=0, le=1)]
    warmup_steps: Annotated[StrictInt, Field(ge=0)]
    min_learning_rate_ratio: Annotated[Float, Field(ge=0, le=1)]
    weight_decay: Annotated[Float, Field(ge=0, le=100)]
    beta1: Annotated[Float, Field(ge=0, lt=1)]
    beta2: Annotated[Float, Field(ge=0, lt=1)]
    clip_norm: Positive | None
    precision: Literal["fp32", "bf16"]
    streams: Literal["fp32", "bf16"]
    compile: StrictBool
    cuda_graphs: StrictBool
    augment: StrictBool
    tensorboard: StrictBool
    log_every: Count
    validate_every: Count
    checkpoint_every: Count
    early_stopping: Count | None
    init_from: Annotated[StrictStr, Field(min_length=1)] | None
    teacher: Annotated[StrictStr, Field(min_length=1)] | None
    teacher_digest: Sha256 | None
    teacher_weight: Annotated[Float, Field(ge=0, le=1)]
    teacher_temperature: Annotated[Float, Field(gt=0, le=100)]


class BaselineParams(Section):
    """The n-gram models that the figures stand beside."""

    add: Positive
    bigram_prior: Positive
    kneser_ney_order: Annotated[StrictInt, Field(ge=2, le=8)]


class EvaluateParams(Section):
    """Scoring whole performances."""

    batch: Count
    chunk: Count
    window: Annotated[StrictInt, Field(ge=2, le=2**24)]
    stride: Count
    bootstrap_resamples: Annotated[StrictInt, Field(ge=100, le=1_000_000)]


class SampleParams(Section):
    """What to generate, and how to choose among the likely tokens."""

    seed: Seed
    unprompted: Annotated[StrictInt, Field(ge=0, le=10_000)]
    prompted: Annotated[StrictInt, Field(ge=0, le=10_000)]
    prompt_seconds: Minutes
    seconds: Minutes
    max_tokens: Count
    max_empty_bars: Annotated[StrictInt, Field(ge=0, le=18_000)]
    max_rewinds: Annotated[StrictInt, Field(ge=0, le=100)]
    excerpts: Annotated[StrictInt, Field(ge=2, le=10_000)]
    temperature: Annotated[Float, Field(ge=0, le=5)]
    top_k: Count | None
    top_p: Annotated[Float, Field(gt=0, le=1)] | None
    min_p: Annotated[Float, Field(ge=0, le=1)] | None
    truncate: tuple[Literal["bar", "position", "pitch", "velocity", "duration", "pedal"], ...]


class ReportParams(Section):
    """The page."""

    audio: StrictBool
    max_samples: Count


class Params(Section):
    """All of params.yaml."""

    runtime: RuntimeParams
    download: DownloadParams
    split: SplitParams
    tokenizer: TokenizerParams
    shard: ShardParams
    model: ModelParams
    train: TrainParams
    baseline: BaselineParams
    evaluate: EvaluateParams
    sample: SampleParams
    report: ReportParams
