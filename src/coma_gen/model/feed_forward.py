"""Feed-forward branch: full as in a transformer, or the half step at each end of a conformer block
(Gulati et al. 2020, arXiv 2005.08100).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """share x [LayerNorm, Linear D -> inner, swish, dropout, Linear inner -> D, dropout].

    Args:
        dim: D.
        inner: Hidden width.
        dropout: Dropout probability after the swish and after the second Linear.
        share: Scale of the output; 0.5 for a half step.
    """

    def __init__(self, *, dim: int, inner: int, dropout: float, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, inner)
        self.hidden_dropout = nn.Dropout(dropout)
        self.down = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = self.hidden_dropout(F.silu(self.up(self.norm(x))))
        output: Tensor = self.dropout(self.down(hidden))
        return output if self.share == 1 else self.share * output
