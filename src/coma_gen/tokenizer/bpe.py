"""Byte-pair encoding of base tokens (Gage 1994; Sennrich et al. 2016; for music Fradet et al. 2023).

miditok learns it and names its conventions: each base id is one character, each bar is one word, so that
a learned id never reaches over a bar line and a prompt that ends at a bar is encoded as the start of the
whole piece is. Applying it needs the tokenizers library alone. The first learned id is the mark that
every word begins with: by itself it decodes to nothing.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import tokenizers

from coma_gen.tokenizer.vocabulary import Ids

FIRST_CHARACTER = 33
"""miditok writes base id i as the character 33 + i."""
WORD_MARK = "\N{LOWER ONE EIGHTH BLOCK}"


class BytePairs:
    """Learned merges, ready to apply."""

    def __init__(self, model: str) -> None:
        """`model` is what `tokenizers.Tokenizer.to_str` gave."""
        self._model = tokenizers.Tokenizer.from_str(model)

    @property
    def size(self) -> int:
        """Number of ids, base and learned."""
        return int(self._model.get_vocab_size())

    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """For each id, the base ids it stands for; an empty tuple for the bare word mark."""
        texts = (str(self._model.id_to_token(index)).removeprefix(WORD_MARK) for index in range(self.size))
        return tuple(tuple(ord(character) - FIRST_CHARACTER for character in text) for text in texts)

    def apply(self, base_ids: Ids, bar_id: int) -> Ids:
        """(T',) the learned ids of base ids (T,), bar by bar."""
        if not len(base_ids):
            return base_ids
        encoding = self._model.encode(
            bar_words(base_ids, bar_id), is_pretokenized=True, add_special_tokens=False
        )
        return np.asarray(encoding.ids, np.uint16)


def bar_words(base_ids: Ids, bar_id: int) -> list[str]:
    """Base ids as text, one word a bar, each beginning with its bar token."""
    text = (base_ids.astype("<u4") + FIRST_CHARACTER).tobytes().decode("utf-32-le")
    starts = np.flatnonzero(base_ids == bar_id).tolist()
    bounds = sorted({0, *starts, len(text)})
    return [text[start:end] for start, end in pairwise(bounds)]
