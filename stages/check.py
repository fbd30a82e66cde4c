"""check: refuses settings that cannot be used, while DVC has removed nothing yet.

DVC removes what a stage had written before it runs that stage, so a value that only `train` looked at would
cost the last model. Every stage stands on this one, which runs first whenever params.yaml has changed; what
it writes is always the same, so that nothing else runs again for it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run

WARNING = """
runtime.threads above 1: threads wait for each other by spinning, so that beside other work, such as a second
experiment, training is several times slower. Processes share cores without that: runtime.processes.
"""


def check(params, workspace) -> None:
    """Looks at what no range of a key can say: folders that settings name, and the address of the runs."""
    from coma_gen.tracking.uri import check_address
    from coma_gen.workspace.preflight import check_paths

    check_paths(params, workspace)
    check_address(workspace.home)
    if params.runtime.threads > 1:
        print(WARNING)
    workspace.data("checked.txt").write_text("params.yaml can be used\n")


if __name__ == "__main__":
    run(check)
