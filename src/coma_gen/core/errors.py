"""Errors in the user's input, with the rule and the remedy.

Readers of params, CSV files, MIDI files, artifacts and prompts collect `Fault`s and raise all of them in one
`UserError`. Entry points print it without a traceback and exit with status 1.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SHOWN = 300
"""Maximum number of characters of `Fault.got` in a message, since a value may be a whole file."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in the input.

    Attributes:
        where: File, row, key or option.
        rule: Rule that is violated.
        got: Value that was found, if it helps.
        remedy: What to type or change, if there is one remedy.
    """

    where: str
    rule: str
    got: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Formats the fault as one line, with control characters escaped."""
        text = f"{self.where}: {self.rule}"
        if self.got:
            text += f", got {_shorten(self.got)}"
        if self.remedy:
            text += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def memory_fault(error: BaseException, *, where: str = "memory", remedy: str = "") -> Fault | None:
    """Returns the fault of an out-of-memory error; None for any other error.

    Python and NumPy raise MemoryError; torch raises RuntimeError with different messages on CPU and GPU.

    Args:
        error: Exception that was raised.
        where: Operation that ran out of memory.
        remedy: What to change; empty for a general remedy.
    """
    message = str(error).partition("\n")[0]
    is_torch = isinstance(error, RuntimeError) and any(
        words in message for words in ("can't allocate memory", "out of memory")
    )
    if not (isinstance(error, MemoryError) or is_torch):
        return None
    general = "end other programs, or lower train.micro_batch, evaluate.batch or sample.max_tokens"
    return Fault(where, "must find enough memory", message, remedy or general)


class UserError(Exception):
    """Invalid input, with one or more faults."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults: tuple[Fault, ...] = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)
