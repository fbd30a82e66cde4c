"""shard: writes the tokens of every performance to memory-mapped files, with the tables that vary the train
split.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def shard(params, workspace) -> None:
    """Encodes the three splits in worker processes; the bytes do not depend on how many there are."""
    from coma_gen.shards.stage import write_shards

    metrics = write_shards(
        params.shard,
        workspace.data("split"),
        workspace.data("corpus"),
        workspace.data("tokenizer"),
        workspace.data("shards"),
    )
    workspace.write_metrics("shard", metrics)


if __name__ == "__main__":
    run(shard)
