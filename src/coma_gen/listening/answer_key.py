"""The answer key of a listening test, embedded in its page in encoded form.

The encoding only keeps honest listeners blind; anyone can decode it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file, sha256_bytes

ANSWERS = "coma-gen listen answers"
"""The `kind` of files of answers."""
DIGEST_LENGTH = 16
MAX_BYTES = 1 << 20
"""Maximum size of the decoded answer key."""
_SEALED = re.compile(r'data-sealed="([A-Za-z0-9+/=]+)"')


@dataclass(frozen=True)
class AnswerKey:
    """The sources of the sides of each trial.

    Attributes:
        sources: Names of the sources, which define the order within pairs.
        trials: Sources of the sides A and B of each trial.
        about: Provenance of the page, as plain data.
    """

    sources: tuple[str, ...]
    trials: tuple[tuple[str, str], ...]
    about: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The encoded key; equal keys have equal text."""
        content = {"sources": self.sources, "trials": self.trials, "about": self.about}
        packed = zlib.compress(json.dumps(content, sort_keys=True).encode("utf-8"), 9)
        return base64.b64encode(packed).decode("ascii")

    @property
    def digest(self) -> str:
        """Identifies the page; files of answers contain it."""
        return sha256_bytes(self.text.encode("ascii"))[:DIGEST_LENGTH]

    def pair(self, sides: Sequence[str]) -> tuple[str, str]:
        """Sorts the two sources of a trial by the order of `sources`."""
        first, second = sorted(sides, key=self.sources.index)
        return first, second

    @classmethod
    def from_page(cls, page: Path) -> AnswerKey:
        """Decodes the answer key of a page.

        Raises:
            UserError: The page is missing or not the page of a listening test.
        """
        rule = "must be a page that `coma-gen listen` made"
        check_file(page)
        try:
            text = page.read_text(encoding="utf-8")
            (encoded,) = _SEALED.findall(text)
            content = json.loads(zlib.decompressobj().decompress(base64.b64decode(encoded), MAX_BYTES))
            trials = tuple((str(first), str(second)) for first, second in content["trials"])
            key = cls(tuple(map(str, content["sources"])), trials, dict(content["about"]))
            if key.text != encoded or not {name for pair in trials for name in pair} <= set(key.sources):
                raise ValueError("it was changed")
        except OSError as error:
            got = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise UserError(Fault(str(page), rule, got, "name it with --page")) from None
        except (ValueError, KeyError, TypeError, zlib.error):
            raise UserError(Fault(str(page), rule, "another file", "name it with --page")) from None
        return key
