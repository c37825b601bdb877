"""Matrix-based Renyi entropies of batches, in bits, after Giraldo, Rao & Principe 2015 and InfoSAM (ICML 2025, 3.1).

Letters in shapes: B images of a batch, K features of a flattened row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(x: Tensor) -> Tensor:
    """Gram matrix of a batch: (B, ...) -> (B, B), linear kernel on L2-normalised flattened rows, trace 1.

    Always float32 or wider, also under autocast: entropies are differences of small numbers."""
    with torch.autocast(x.device.type, enabled=False):
        rows = x.flatten(1)
        rows = F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=1)
        return rows @ rows.T / len(rows)


def entropy(gram: Tensor, alpha: float = 2.0) -> Tensor:
    """Renyi entropy of order `alpha` of a trace-1 Gram matrix (B, B), a scalar in bits between 0 and log2 B.

    alpha 2 is -log2 of the squared Frobenius norm; alpha 1 the von Neumann limit; any other order takes eigenvalues.
    Raises ValueError unless alpha is positive and finite."""
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be > 0 and finite, got {alpha}: the entropy of that order is not defined")
    with torch.autocast(gram.device.type, enabled=False):
        if alpha == 2.0:
            return -torch.log2(gram.square().sum())
        spectrum = _spectrum(gram)
        if math.isclose(alpha, 1.0, abs_tol=1e-6):
            return -(spectrum * spectrum.log2()).sum().to(gram.dtype)
        return (spectrum.pow(alpha).sum().log2() / (1 - alpha)).to(gram.dtype)


def _spectrum(gram: Tensor) -> Tensor:
    """Eigenvalues of a Gram matrix that are not rounding noise, float64, with sum 1.

    Repeated rows give eigenvalues 0. Their rounded values, raised to an order below 1, would add bits that are not
    there and gradients without bound. Near order 1 a sum off by 1e-7 is divided by 1 - alpha, hence the width."""
    eigenvalues = torch.linalg.eigvalsh(gram)
    noise = len(gram) * torch.finfo(gram.dtype).eps * eigenvalues.detach().amax()
    present = eigenvalues[eigenvalues > noise].double()
    return present / present.sum().detach()


def joint_entropy(*grams: Tensor, alpha: float = 2.0) -> Tensor:
    """Entropy in bits of several variables together: their Gram matrices' Hadamard product, brought back to trace 1."""
    if not grams:
        raise ValueError("joint_entropy needs at least one Gram matrix, got none")
    product = torch.stack(grams).prod(dim=0)
    return entropy(product / product.trace(), alpha)


def mutual_information(gram_a: Tensor, gram_b: Tensor, alpha: float = 2.0) -> Tensor:
    """I(a; b) = H(a) + H(b) - H(a, b) in bits, for two trace-1 Gram matrices (B, B)."""
    return entropy(gram_a, alpha) + entropy(gram_b, alpha) - joint_entropy(gram_a, gram_b, alpha=alpha)
