"""Small settings for small pipelines."""

from __future__ import annotations

from typing import Any

from coma_gen.config.schema import DownloadParams, SplitParams

DOWNLOAD = DownloadParams(
    corpus="synthetic",
    path="music",
    maestro_url="https://example.org/none.zip",
    maestro_sha256="0" * 64,
    synthetic_performances=3,
    synthetic_seconds=5.0,
    synthetic_seed=0,
)
SPLIT = SplitParams(
    method="by-file",
    validation_fraction=0.3,
    test_fraction=0.3,
    seed=0,
    composers_keep=(),
    composers_drop=(),
    composers_top=None,
    composers_top_by="hours",
    max_unreadable=0,
)
TOKENIZER: dict[str, Any] = {
    "positions_per_beat": 24,
    "duration_bins": ((0, 1, 24), (1, 4, 12), (4, 16, 4)),
    "velocities": 32,
    "pitch_range": (21, 108),
    "pedal": "extend",
    "vocab_size": None,
    "fidelity_performances": 1,
    "max_onset_rms_ms": 50.0,
    "max_end_ratio_error": 0.1,
}
