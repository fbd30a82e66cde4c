"""Byte-pair encoding of base tokens (Gage 1994; Sennrich et al. 2016; for music Fradet et al. 2023).

miditok trains the merges with its conventions: each base id is one character and each bar is one word, so a
BPE token never crosses a bar line, and a prompt that ends at a bar line has the same ids as the start of the
whole piece. Encoding needs only the tokenizers library. The first id after the base ids is the word prefix,
which by itself decodes to nothing.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import tokenizers

from coma_gen.tokenizer.vocabulary import Ids

FIRST_CHARACTER = 33
"""miditok represents base id i by the character 33 + i."""
WORD_MARK = "\N{LOWER ONE EIGHTH BLOCK}"


class BytePairs:
    """Trained BPE merges."""

    def __init__(self, model: str) -> None:
        """Loads the JSON of `tokenizers.Tokenizer.to_str`."""
        self._model = tokenizers.Tokenizer.from_str(model)

    @property
    def size(self) -> int:
        """Number of base and BPE ids."""
        return int(self._model.get_vocab_size())

    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """Returns the base ids of each id; an empty tuple for the bare word prefix."""
        texts = (str(self._model.id_to_token(index)).removeprefix(WORD_MARK) for index in range(self.size))
        return tuple(tuple(ord(character) - FIRST_CHARACTER for character in text) for text in texts)

    def apply(self, base_ids: Ids, bar_id: int) -> Ids:
        """Encodes base ids (T,) to BPE ids (T',), bar by bar."""
        if not len(base_ids):
            return base_ids
        encoding = self._model.encode(
            bar_words(base_ids, bar_id), is_pretokenized=True, add_special_tokens=False
        )
        return np.asarray(encoding.ids, np.uint16)


def bar_words(base_ids: Ids, bar_id: int) -> list[str]:
    """Converts base ids to text, one word per bar, starting with its bar token."""
    text = (base_ids.astype("<u4") + FIRST_CHARACTER).tobytes().decode("utf-32-le")
    starts = np.flatnonzero(base_ids == bar_id).tolist()
    bounds = sorted({0, *starts, len(text)})
    return [text[start:end] for start, end in pairwise(bounds)]
