"""A vector quantizer with entropy loss as papers write it down: every N x K matrix is made, and autograd keeps them.

Cosine codes (Yu et al., arXiv:2110.04627), codebook and commitment loss (van den Oord et al., arXiv:1711.00937),
entropy loss (Chang et al., arXiv:2202.04200) with the constants of FQGAN (Bai et al., arXiv:2411.16681).
"""

import torch
import torch.nn.functional as F

TEMPERATURE = 0.01
ENTROPY_WEIGHT = 0.03
COMMITMENT = 0.25


def distances(z, codebook):
    """|z_i - e_j|^2 of z (N, d) and codebook (K, d), with shape (N, K)."""
    return (z**2).sum(dim=1, keepdim=True) + (codebook**2).sum(dim=1) - 2 * z @ codebook.T


def entropy_loss(distance):
    """Mean entropy of the assignments minus the entropy of the mean assignment; distances (N, K)."""
    affinity = -distance / TEMPERATURE
    p = affinity.softmax(dim=1)
    log_p = affinity.log_softmax(dim=1)
    mean = p.mean(dim=0)
    sample_entropy = -(p * log_p).sum(dim=1).mean()
    return sample_entropy + (mean * (mean + 1e-5).log()).sum()


def quantize(z, codebook, *, entropy, pairwise=distances):
    """Quantized z (N, d) through the straight-through estimator, and the loss; z and codebook are normalised here."""
    z, codebook = F.normalize(z, dim=1), F.normalize(codebook, dim=1)
    distance = pairwise(z, codebook)
    quantized = codebook[distance.argmin(dim=1)]
    loss = F.mse_loss(quantized, z.detach()) + COMMITMENT * F.mse_loss(z, quantized.detach())
    if entropy:
        loss = loss + ENTROPY_WEIGHT * entropy_loss(distance)
    return z + (quantized - z).detach(), loss


def step(z, codebook, upstream, *, entropy):
    """Forward and backward with ``upstream`` (N, d) as the decoder's gradient."""
    output, loss = quantize(z, codebook, entropy=entropy)
    ((output * upstream).sum() + loss).backward()


def cdist_step(z, codebook, upstream, *, entropy):
    """The same with ``torch.cdist`` for the distances; without entropy nobody needs their gradient."""

    def pairwise(z, codebook):
        if entropy:
            return torch.cdist(z, codebook) ** 2
        with torch.no_grad():
            return torch.cdist(z, codebook)

    output, loss = quantize(z, codebook, entropy=entropy, pairwise=pairwise)
    ((output * upstream).sum() + loss).backward()
