"""Similarity of two sets of pieces in one measure, after Yang and Lerch 2018, "On the evaluation of
generative models in music".

Within a set, every piece has a distance to every other; between two sets, every piece of one has a distance
to every piece of the other. If both sets come from one population, the distances within and between have the
same distribution: their densities (Gaussian kernels) overlap completely, and the divergence between them is
0.

With few pieces the estimate is rough: two sets from one population overlap by less than 1, and by how much
less depends on their size. It is therefore reported beside the value for real music against real music at the
same size.

Shapes: N and M pieces, P distances, X grid points of an integral.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
GRID_POINTS = 200
"""Number of points at which densities are evaluated."""
REACH = 4.0
"""Kernel widths by which the integral extends beyond the outermost distances."""
NARROWEST = 0.01
"""Minimum kernel width as a fraction of the largest distance: equal distances have no width of their own."""
SMALLEST = 1e-6
"""Minimum density as a fraction of the highest, which limits divergences to about 14 nats."""


def distances_within(values: Floats) -> Floats:
    """Returns the pairwise distances (N (N - 1) / 2,) of the values (N,) of one set."""
    one, other = np.triu_indices(len(values), 1)
    return np.abs(values[one] - values[other])


def distances_between(values: Floats, others: Floats) -> Floats:
    """Returns the distances (N M,) of the values (N,) of one set from those (M,) of another."""
    return np.abs(values[:, None] - others[None, :]).ravel()


def overlap_and_divergence(real: Floats, other: Floats) -> tuple[float, float]:
    """Compares two distributions of distances.

    Args:
        real: (P,) for example distances within a set of real pieces.
        other: (P',) for example distances between real and generated pieces.

    Returns:
        The overlapping area of the densities, 0 to 1, and the Kullback-Leibler divergence of `real` from
        `other` in nats.
    """
    largest = max(float(real.max()), float(other.max()))
    if largest == 0.0:
        return 1.0, 0.0
    families = (real / largest, other / largest)
    widths = [max(kernel_width(points), NARROWEST) for points in families]
    margin = REACH * max(widths)
    grid = np.linspace(min(points.min() for points in families) - margin, 1 + margin, GRID_POINTS)
    found = [density(points, width, grid) for points, width in zip(families, widths, strict=True)]
    floor = SMALLEST * max(values.max() for values in found)
    p, q = (np.maximum(values, floor) / np.maximum(values, floor).sum() for values in found)
    return float(np.minimum(p, q).sum()), float(max(0.0, (p * np.log(p / q)).sum()))


def kernel_width(points: Floats) -> float:
    """Returns the kernel's standard deviation for points (P,) by Scott's rule; 0 for one or equal points."""
    return float(points.std(ddof=1)) * len(points) ** -0.2 if len(points) > 1 else 0.0


def density(points: Floats, width: float, grid: Floats) -> Floats:
    """Evaluates the mean (X,) of Gaussians of standard deviation `width` around points (P,), at grid (X,)."""
    distance = (grid[:, None] - points[None, :]) / width
    return np.asarray(np.exp(-0.5 * distance**2).mean(axis=1) / (width * np.sqrt(2 * np.pi)), np.float64)
