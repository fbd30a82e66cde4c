"""What a page of a listening test hides from its listeners, in a form that a look at its text does not tell.

It is no secret from who decodes it on purpose: it keeps honest listeners blind.
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
"""What files of answers say that they are."""
DIGEST_LENGTH = 16
MOST_BYTES = 1 << 20
"""Of what is hidden: more is never read."""
_HIDDEN = re.compile(r'data-sealed="([A-Za-z0-9+/=]+)"')


@dataclass(frozen=True)
class Sealed:
    """Which source is behind each side.

    Attributes:
        sources: their names, in the order that pairs have them.
        trials: the sources of sides A and B of each.
        about: plain data that the page was made from.
    """

    sources: tuple[str, ...]
    trials: tuple[tuple[str, str], ...]
    about: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The hidden form; the same content gives the same text."""
        content = {"sources": self.sources, "trials": self.trials, "about": self.about}
        packed = zlib.compress(json.dumps(content, sort_keys=True).encode("utf-8"), 9)
        return base64.b64encode(packed).decode("ascii")

    @property
    def digest(self) -> str:
        """Names the page: answers bear it."""
        return sha256_bytes(self.text.encode("ascii"))[:DIGEST_LENGTH]

    def pair(self, sides: Sequence[str]) -> tuple[str, str]:
        """The two sources of a trial in the order of `sources`."""
        first, second = sorted(sides, key=self.sources.index)
        return first, second

    @classmethod
    def of_page(cls, page: Path) -> Sealed:
        """Reads a page.

        Raises:
            UserError: there is none, or it is another kind of page.
        """
        rule = "must be a page that `coma-gen listen` made"
        check_file(page)
        try:
            text = page.read_text(encoding="utf-8")
            (hidden,) = _HIDDEN.findall(text)
            content = json.loads(zlib.decompressobj().decompress(base64.b64decode(hidden), MOST_BYTES))
            trials = tuple((str(first), str(second)) for first, second in content["trials"])
            sealed = cls(tuple(map(str, content["sources"])), trials, dict(content["about"]))
            if sealed.text != hidden or not {name for pair in trials for name in pair} <= set(sealed.sources):
                raise ValueError("it was changed")
        except OSError as error:
            got = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise UserError(Fault(str(page), rule, got, "name it with --page")) from None
        except (ValueError, KeyError, TypeError, zlib.error):
            raise UserError(Fault(str(page), rule, "another file", "name it with --page")) from None
        return sealed
