"""check: validates the settings before DVC removes any output.

DVC removes the outputs of a stage before it runs the stage, so an invalid value that only `train` detects
would cost the last model. All stages depend on this one, which runs first whenever params.yaml has changed.
Its output is always the same, so it does not cause other stages to run again.
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
    """Checks what the schema cannot: folders named in the settings and the MLflow tracking URI."""
    from coma_gen.tracking.uri import check_address
    from coma_gen.workspace.preflight import check_paths

    check_paths(params, workspace)
    check_address(workspace.home)
    if params.runtime.threads > 1:
        print(WARNING)
    workspace.data("checked.txt").write_text("params.yaml can be used\n")


if __name__ == "__main__":
    run(check)
