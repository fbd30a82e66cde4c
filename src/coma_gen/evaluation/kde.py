"""How alike two sets of pieces are in one measure, after Yang and Lerch 2018, "On the evaluation of
generative models in music".

Within a set every piece has a distance to every other; between two sets every piece of the one has a distance
to every piece of the other. If the sets are of one kind, the two families of distances are distributed alike:
their densities (Gaussian kernels) overlap wholly, and the divergence between them is 0.

Few pieces make this a rough figure, whatever its decimals: two sets of the same kind overlap by less than
1, and how much less depends on how many they are. So it stands beside what real music gives against real
music, at the same number.

Shapes: N and M pieces, P distances, X grid points of an integral.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
GRID_POINTS = 200
"""How many points densities are taken at."""
REACH = 4.0
"""Kernel widths that the integral goes beyond the outermost distances."""
NARROWEST = 0.01
"""A kernel is no narrower than this share of the largest distance: equal distances have no width."""
SMALLEST = 1e-6
"""Densities are no smaller than this share of the highest; so no divergence exceeds 14 nats by much."""


def within(values: Floats) -> Floats:
    """(N (N - 1) / 2,) distances of the values (N,) of one set from each other."""
    one, other = np.triu_indices(len(values), 1)
    return np.abs(values[one] - values[other])


def between(values: Floats, others: Floats) -> Floats:
    """(N M,) distances of the values (N,) of one set from those (M,) of another."""
    return np.abs(values[:, None] - others[None, :]).ravel()


def overlap_and_divergence(real: Floats, other: Floats) -> tuple[float, float]:
    """How alike two families of distances are.

    Args:
        real: (P,) such as those within a set of real pieces.
        other: (P',) such as those between real and generated pieces.

    Returns:
        The area that the densities share, 0 to 1; and the Kullback-Leibler divergence, in nats, that is
        paid for taking the density of `other` where that of `real` holds.
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
    """Standard deviation of a kernel over points (P,) by Scott's rule; 0 for one point or equal ones."""
    return float(points.std(ddof=1)) * len(points) ** -0.2 if len(points) > 1 else 0.0


def density(points: Floats, width: float, grid: Floats) -> Floats:
    """(X,) mean of Gaussians of standard deviation `width` around points (P,), at the grid points (X,)."""
    distance = (grid[:, None] - points[None, :]) / width
    return np.asarray(np.exp(-0.5 * distance**2).mean(axis=1) / (width * np.sqrt(2 * np.pi)), np.float64)
