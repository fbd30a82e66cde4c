"""shard: writes the tokens of all performances to memory-mapped files, with tables for data augmentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def shard(params, workspace) -> None:
    """Encodes the three splits in worker processes, whose number does not affect the result."""
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
