"""Reproducibility: pinned CPU instruction sets and stateless random numbers.

`pin_cpu` must run before numpy and torch are imported: both select kernels by the machine's instruction set,
and sums in another order differ in the last bit. Random numbers come from Philox (Salmon et al. 2011), a
counter-based generator, keyed by (seed, purpose, counters): step 700 of a resumed run draws the same numbers
as step 700 of an uninterrupted run, on any number of workers.
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
"""Environment variables that restrict torch, MKL, numpy and OpenBLAS to AVX2. MKL honors its variable only on
Intel, but is not used in pinned processes (`coma_gen.model.portable`).
"""


def pin_cpu(*, pin: bool, threads: int) -> None:
    """Sets environment variables for the instruction set and the number of threads.

    Args:
        pin: Whether to restrict to AVX2, so that machines agree bitwise; False for the fastest kernels.
        threads: Number of threads of every numeric library, on which results depend.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if pin and _is_x86():
        os.environ.update(AVX2_ONLY)


def is_pinned() -> bool:
    """Whether this process is restricted to AVX2 by `pin_cpu`."""
    return _is_x86() and all(os.environ.get(name) == value for name, value in AVX2_ONLY.items())


def _is_x86() -> bool:
    return os.uname().machine in ("x86_64", "AMD64") if hasattr(os, "uname") else False


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Returns a numpy generator keyed by its arguments alone.

    Args:
        seed: Seed of the run.
        purpose: Use of the numbers; different purposes give independent numbers.
        counters: Further keys, such as the step and the index in the batch.
    """
    import numpy as np

    label = "/".join([str(seed), purpose, *(str(counter) for counter in counters)])
    key = int.from_bytes(hashlib.blake2b(label.encode("utf-8"), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """Returns a seed for `torch.manual_seed` in [0, 2**63), a function of its arguments."""
    label = "/".join([str(seed), purpose, *(str(counter) for counter in counters)])
    return int.from_bytes(hashlib.blake2b(label.encode("utf-8"), digest_size=8).digest(), "little") >> 1
