"""Types of the settings: one frozen pydantic model for each section of params.yaml.

Sections validate values but never change them, and have no defaults: every key must be in params.yaml, and
unknown keys are errors. The constraint of a field is what an error message states.
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
"""Descriptions of the next bars that a model can be conditioned on; see `tokenizer.conditions`."""
CONDITION_BINS = 16
"""Number of bins of a condition, without the null bin."""


class Section(BaseModel):
    """Base class: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RuntimeParams(Section):
    """Threads, device and processes of the numeric stages."""

    threads: Annotated[StrictInt, Field(ge=1, le=1024)]
    pin_cpu: StrictBool
    device: Literal["cpu", "cuda", "mps", "auto"]
    processes: Annotated[StrictInt, Field(ge=1, le=64)] | Literal["auto"]


class DownloadParams(Section):
    """Source of the corpus."""

    corpus: Literal["maestro-mini", "maestro", "synthetic", "folder"]
    path: Annotated[StrictStr, Field(min_length=1)]
    maestro_url: Annotated[StrictStr, Field(pattern=r"^(https://|http://(127\.0\.0\.1|localhost)[:/])")]
    maestro_sha256: Sha256
    synthetic_performances: Annotated[StrictInt, Field(ge=3, le=1_000_000)]
    synthetic_seconds: Annotated[Float, Field(ge=5, le=3600)]
    synthetic_seed: Seed


class SplitParams(Section):
    """Split of the performances into train, validation and test."""

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
    """Vocabulary and resolution of the REMI tokenizer."""

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
    """Token files and augmentation of the train split."""

    transpose: Annotated[StrictInt, Field(ge=0, le=11)]
    velocity_shift: Annotated[StrictInt, Field(ge=0, le=8)]
    tempo_factors: tuple[Annotated[Float, Field(ge=0.5, le=2.0)], ...]
    tokens_per_file: Annotated[StrictInt, Field(ge=1024, le=2**31)]


class ModelParams(Section):
    """Architecture of the model."""

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
        """Hidden width of a feed-forward."""
        return round(self.ff_expansion * self.dim)


class TrainParams(Section):
    """Optimization and training loop."""

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
    """N-gram baselines."""

    add: Positive
    bigram_prior: Positive
    kneser_ney_order: Annotated[StrictInt, Field(ge=2, le=8)]


class EvaluateParams(Section):
    """Evaluation of the likelihood of whole performances."""

    batch: Count
    chunk: Count
    window: Annotated[StrictInt, Field(ge=2, le=2**24)]
    stride: Count
    bootstrap_resamples: Annotated[StrictInt, Field(ge=100, le=1_000_000)]


class SampleParams(Section):
    """Samples to generate and sampling parameters."""

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
    """Report page."""

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
