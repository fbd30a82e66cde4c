"""Faults of the user's input, stated so that they can be mended.

One way to refuse: whoever reads params, a CSV, a MIDI file, an artifact or a prompt collects `Fault`s and
raises them together in one `UserError`. Entry points print it without a traceback and exit with status 1.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SHOWN = 300
"""Characters of what was found that a message shows: a value may be a whole file."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        where: the file, row, key or option at fault.
        rule: what must hold there.
        got: what was found instead, when it helps to know.
        remedy: what to type or change, when there is one thing to do.
    """

    where: str
    rule: str
    got: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """One line, whatever the input held: its control characters are shown, not sent to the terminal."""
        text = f"{self.where}: {self.rule}"
        if self.got:
            text += f", got {_shortened(self.got)}"
        if self.remedy:
            text += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        return "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def memory_fault(error: BaseException, *, where: str = "memory", remedy: str = "") -> Fault | None:
    """What to say of an error that means that memory ran out; None for any other.

    Python and NumPy raise MemoryError; torch a RuntimeError on a CPU, with these words, and another on a GPU.

    Args:
        error: what was raised.
        where: what was being done.
        remedy: what to change; empty names what helps most stages.
    """
    words = str(error).partition("\n")[0]
    is_torch = isinstance(error, RuntimeError) and any(
        each in words for each in ("can't allocate memory", "out of memory")
    )
    if not (isinstance(error, MemoryError) or is_torch):
        return None
    general = "end other programs, or lower train.micro_batch, evaluate.batch or sample.max_tokens"
    return Fault(where, "must find enough memory", words, remedy or general)


class UserError(Exception):
    """The input cannot be used, for one or more stated reasons."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults: tuple[Fault, ...] = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)
