"""A model that can be asked for music."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.model.device import choose_device
from coma_gen.model.serialization import LoadedModel, load_model
from coma_gen.tokenizer.conditions import ConditionTables
from coma_gen.tokenizer.grammar import Grammar
from coma_gen.tokenizer.remi import Tokenizer


@dataclass(frozen=True)
class MusicGenerator:
    """The weights, and the tokenizer that they were trained with."""

    loaded: LoadedModel
    tokenizer: Tokenizer
    grammar: Grammar

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> MusicGenerator:
        """Reads what the train stage wrote.

        Raises:
            UserError: when something in the folder is changed, missing or does not belong together.
        """
        loaded = load_model(folder, device=choose_device(device))
        tokenizer = Tokenizer.load(folder / "tokenizer")
        rule = "must hold the tokenizer that its weights were trained with"
        trained_with = loaded.manifest.made_from.get("tokenizer")
        if trained_with != tokenizer.digest:
            got = f"{tokenizer.digest[:12]}... for weights of {(trained_with or 'none')[:12]}..."
            raise UserError(Fault(str(folder), rule, got, "run `dvc repro` to train on this tokenizer"))
        if tokenizer.vocab_size != loaded.vocab_size:
            got = f"{tokenizer.vocab_size} tokens for weights of {loaded.vocab_size}"
            raise UserError(Fault(str(folder), rule, got))
        return cls(loaded, tokenizer, Grammar.of(tokenizer.vocabulary))

    @property
    def writes_pedal(self) -> bool:
        """Whether the pedal is part of what the model writes."""
        return self.tokenizer.vocabulary.pedal == "tokens"

    @cached_property
    def conditions(self) -> ConditionTables | None:
        """What the model may be told of new music; None for one that was trained without."""
        names = self.loaded.model.params.conditions
        return ConditionTables.from_vocabulary(self.tokenizer.vocabulary, names) if names else None
