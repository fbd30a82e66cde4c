"""Runs all checks of `coma-gen doctor` on a checkout.

The checks change nothing; only `--sweep` (`data_checks.sweep`) removes abandoned checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from coma_gen.core.errors import UserError
from coma_gen.workspace import data_checks, environment_checks
from coma_gen.workspace.finding import Finding
from coma_gen.workspace.paths import Workspace

Check = Callable[[Workspace], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    environment_checks.python,
    environment_checks.packages,
    environment_checks.git,
    environment_checks.dvc_locks,
    environment_checks.disk,
    data_checks.settings,
    data_checks.archives,
    data_checks.artifacts,
    data_checks.cache,
    data_checks.checkpoints,
    data_checks.leftovers,
)


def examine(workspace: Workspace) -> list[Finding]:
    """Runs all checks; returns errors first. A check that fails is reported as a finding."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(workspace)
        except UserError as error:
            found += [
                Finding(check.__name__, str(fault), fault.remedy or "see above") for fault in error.faults
            ]
        except OSError as error:
            problem = f"{error.filename or 'the disk'}: {error.strerror}"
            found.append(Finding(check.__name__, problem, "change its owner or its permissions"))
    return sorted(dict.fromkeys(found), key=lambda finding: not finding.is_wrong)


def format_findings(findings: Sequence[Finding]) -> str:
    """Formats the findings as text: two lines each, and a count."""
    wrong = sum(finding.is_wrong for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"  {'WRONG' if finding.is_wrong else 'note ':<7}{finding.what:<10}{finding.problem}")
        lines.append(f"  {'':<17}{finding.todo}")
    notes = len(findings) - wrong
    count = "nothing is wrong" if not wrong else f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong"
    lines.append(f"doctor: {count}" + (f", {notes} to know" if notes else ""))
    return "\n".join(lines)
