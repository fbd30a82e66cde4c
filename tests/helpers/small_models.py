"""Small untrained models with the tokenizers that go with them, as the train stage writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coma_gen.config.load import load_params
from coma_gen.config.schema import Params
from coma_gen.midi.notes import Notes
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import save_model
from coma_gen.tokenizer.remi import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "head_dim": 8,
    "window_sizes": (8, 16),
    "kernel_size": 5,
    "num_streams": 2,
}
SCALE = Notes.of(
    [0.5 * i for i in range(12)], [0.4] * 12, [60 + i for i in range(12)], [60 + i for i in range(12)]
)


def small_params(**model: object) -> Params:
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(update={"model": params.model.model_copy(update={**SMALL, **model})})


def written_model(
    folder: Path,
    *,
    vocab_size: int | None = None,
    pedal: str = "extend",
    velocities: int = 32,
    positions_per_beat: int = 24,
    music: Sequence[Notes] = (SCALE,),
    **model: object,
) -> Path:
    """data/model as the train stage writes it, from an untrained model."""
    params = small_params(**model)
    changed = {
        "vocab_size": vocab_size,
        "pedal": pedal,
        "velocities": velocities,
        "positions_per_beat": positions_per_beat,
    }
    tokenizer = Tokenizer.build(params.tokenizer.model_copy(update=changed))
    tokenizer.fit(music)
    sealed = tokenizer.save(folder / "tokenizer")
    conformer = Conformer(params=params.model, vocab_size=tokenizer.vocab_size, seed=1)
    weights = {name: conformer.state_dict() for name in ("best", "last")}
    origin = {"tokenizer": sealed.digest}
    save_model(folder / "model", conformer, weights=weights, tokenizer=folder / "tokenizer", made_from=origin)
    return folder / "model"
