"""Half a feed-forward: the branch that opens and closes a conformer block (Gulati et al. 2020, arXiv
2005.08100).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class HalfFeedForward(nn.Module):
    """0.5 x [LayerNorm, Linear D -> expansion x D, swish, dropout, Linear back, dropout].

    Args:
        dim: D.
        expansion: inner width / D.
        dropout: after the swish and after the second Linear, in training.
    """

    def __init__(self, *, dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, expansion * dim)
        self.hidden_dropout = nn.Dropout(dropout)
        self.down = nn.Linear(expansion * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = self.hidden_dropout(F.silu(self.up(self.norm(x))))
        half: Tensor = 0.5 * self.dropout(self.down(hidden))
        return half
