"""The feed-forward branch: whole as in a transformer, or the half that opens and closes a conformer block
(Gulati et al. 2020, arXiv 2005.08100).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """share x [LayerNorm, Linear D -> inner, swish, dropout, Linear back, dropout].

    Args:
        dim: D.
        inner: width between the two Linears.
        dropout: after the swish and after the second Linear, in training.
        share: 0.5 for half a feed-forward.
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
        whole: Tensor = self.dropout(self.down(hidden))
        return whole if self.share == 1 else self.share * whole
