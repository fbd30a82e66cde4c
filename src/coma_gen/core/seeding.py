"""What makes a result the same again: pinned instruction sets, and random numbers that are functions, not
streams.

`pin_cpu` must run before numpy and torch are imported: both choose their kernels by the machine's instruction
set, and sums in another order differ in the last bit. Random numbers come from Philox (Salmon et al. 2011), a
counter-based generator: a draw is a function of (seed, purpose, counters), so that step 700 of a resumed run
draws what step 700 of an uninterrupted one does, on any number of workers.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

AVX2_ONLY = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""Environment that keeps torch, MKL, numpy and OpenBLAS to AVX2 (MKL honors it on Intel only, and is not used
where this is set: `coma_gen.model.portable`).
"""


def pin_cpu(*, pin: bool, threads: int) -> None:
    """Sets the environment for one instruction set and a fixed number of threads.

    Args:
        pin: keep to AVX2, so that two machines agree; False lets each machine run at its fastest.
        threads: threads of every numeric library; results depend on it.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if pin and _is_x86():
        os.environ.update(AVX2_ONLY)


def is_pinned() -> bool:
    """Whether this process keeps to the one instruction set, as `pin_cpu` asked it to."""
    return _is_x86() and all(os.environ.get(name) == value for name, value in AVX2_ONLY.items())


def _is_x86() -> bool:
    return os.uname().machine in ("x86_64", "AMD64") if hasattr(os, "uname") else False


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A numpy generator that depends on nothing but its arguments.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for; another purpose gives independent numbers.
        counters: for instance the step and the index in the batch.
    """
    import numpy as np

    label = "/".join([str(seed), purpose, *(str(counter) for counter in counters)])
    key = int.from_bytes(hashlib.blake2b(label.encode("utf-8"), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """A seed for `torch.manual_seed` as a function of its arguments, in [0, 2**63)."""
    label = "/".join([str(seed), purpose, *(str(counter) for counter in counters)])
    return int.from_bytes(hashlib.blake2b(label.encode("utf-8"), digest_size=8).digest(), "little") >> 1
