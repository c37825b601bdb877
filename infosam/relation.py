"""The relation module of InfoSAM (ICML 2025, section 3.2): how a mask token relates to every image token.

One module serves teacher and student. As released, the residual takes the LayerNormed features, where equation 9 of
the paper writes the raw ones. Letters in shapes: B images, L image tokens, D channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class RelationModule(nn.Module):
    """Attention scores of one token over all image tokens, plus their dot product, as unit rows."""

    def __init__(self, dim: int = 256) -> None:
        """`dim`: channels D of features and token; 132,608 parameters for 256."""
        super().__init__()
        self.norm_features = nn.LayerNorm(dim)
        self.norm_token = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.scale = dim**-0.5

    def forward(self, features: Tensor, token: Tensor) -> Tensor:
        """(B, L, D), (B, 1, D) -> (B, L) with rows of length 1."""
        features, token = self.norm_features(features), self.norm_token(token)
        attention = self.query(token) @ self.key(features).transpose(1, 2) * self.scale
        residual = token @ features.transpose(1, 2)
        return F.normalize((attention + residual).flatten(1), dim=1)
