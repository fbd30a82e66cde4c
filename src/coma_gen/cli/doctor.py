"""`coma-gen doctor`: diagnose problems of this checkout and suggest fixes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coma_gen.core.errors import UserError

if TYPE_CHECKING:
    from coma_gen.workspace.paths import Workspace

EXAMPLES = """examples:
  coma-gen doctor             check everything; exits with status 1 if something is wrong
  coma-gen doctor --json      print JSON
  coma-gen doctor --sweep     first remove abandoned checkpoints
"""


def add_command(commands: Any) -> None:
    """Adds the command to the parser."""
    doctor = commands.add_parser(
        "doctor",
        help="diagnose problems of this checkout and suggest fixes",
        description="Check Python, git, DVC, disk, params, archives, data, cache, checkpoints and MLflow.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument(
        "--sweep",
        action="store_true",
        help="remove checkpoints of other params, data or code that were not used for a week",
    )
    doctor.set_defaults(run=_run_doctor)


def _run_doctor(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.tracking.uri import check_address
    from coma_gen.workspace.data_checks import sweep
    from coma_gen.workspace.doctor import examine, format_findings
    from coma_gen.workspace.finding import Finding, size_of

    if options.sweep:
        for folder, size in sweep(workspace):
            print(f"removed {folder.relative_to(workspace.home)} ({size_of(size)})")
    findings = examine(workspace)
    try:
        check_address(workspace.home)
    except UserError as error:
        findings[:0] = [Finding("mlflow", str(fault), fault.remedy) for fault in error.faults]
    print(
        json.dumps([asdict(finding) for finding in findings], indent=2)
        if options.json
        else format_findings(findings)
    )
    return 1 if any(finding.is_wrong for finding in findings) else 0
