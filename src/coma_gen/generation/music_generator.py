"""A trained model together with its tokenizer and grammar."""

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
    """A trained model, the tokenizer it was trained with, and the grammar of its tokens."""

    loaded: LoadedModel
    tokenizer: Tokenizer
    grammar: Grammar

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> MusicGenerator:
        """Loads the folder that the train stage writes.

        Raises:
            UserError: A file is missing or changed, or the tokenizer is not that of the weights.
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
        """Whether the model generates pedal events."""
        return self.tokenizer.vocabulary.pedal == "tokens"

    @cached_property
    def conditions(self) -> ConditionTables | None:
        """Tables of the model's conditions; None for a model without conditions."""
        names = self.loaded.model.params.conditions
        return ConditionTables.from_vocabulary(self.tokenizer.vocabulary, names) if names else None
