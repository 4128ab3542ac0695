"""One training step of a KL autoencoder with a discriminator, in the order of latent-diffusion (arXiv:2112.10752).

Two optimizers, and each runs the autoencoder: the second forward pass sees the weights that the first has just changed.
The perceptual distance is computed in both, the adaptive weight walks the perceptual network and the discriminator once
more, and nothing is left out before the adversary starts. Networks and losses are handed in.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


class Step:
    """Networks with their optimizers.

    Args:
        model: has ``training_forward({"image": images})`` and ``last_layer``.
        discriminator: images -> object with ``logits``.
        perceptual: (prediction, target) -> distance of each image, (B, 1, 1, 1).
        start: step at which the adversary starts to count; it is computed before, too.
        autocast: whether the networks compute in bfloat16.
    """

    def __init__(self, model, discriminator, perceptual, *, start=0, autocast=False):
        self.model, self.discriminator, self.perceptual = model, discriminator, perceptual
        self.start, self.autocast, self.count = start, autocast, 0
        self.generator_optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.5, 0.9))
        self.discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))

    def __call__(self, images):
        factor = 1.0 if self.count >= self.start else 0.0
        self.discriminator.requires_grad_(False)
        with self._precision(images):
            loss = self._generator_loss(images, factor)
        loss.backward()
        self.generator_optimizer.step()
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(True)
        self.model.requires_grad_(False)
        with self._precision(images):
            loss = self._discriminator_loss(images, factor)
        loss.backward()
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.model.requires_grad_(True)
        self.count += 1

    def _precision(self, images):
        return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.autocast)

    def _distance(self, images):
        output = self.model.training_forward({"image": images})
        made = output.reconstruction.float()
        nll = ((images - made).abs() + self.perceptual(made, images)).sum() / len(images)
        return output, made, nll

    def _generator_loss(self, images, factor):
        output, made, nll = self._distance(images)
        kl = output.bottleneck.posterior.kl().sum() / len(images)
        adversarial = -self.discriminator(made).logits.float().mean()
        layer = self.model.last_layer
        of_nll = torch.autograd.grad(nll, layer, retain_graph=True)[0]
        of_adversarial = torch.autograd.grad(adversarial, layer, retain_graph=True)[0]
        weight = (of_nll.norm() / (of_adversarial.norm() + 1e-4)).clamp(0.0, 1e4).detach()
        return nll + 1e-6 * kl + 0.5 * factor * weight * adversarial

    def _discriminator_loss(self, images, factor):
        _, made, _ = self._distance(images)
        real = self.discriminator(images.detach()).logits.float()
        fake = self.discriminator(made.detach()).logits.float()
        return factor * 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def diffusers_model(channels):
    """diffusers' AutoencoderKL with the widths of KL-f8, under the names that :class:`Step` uses."""
    from diffusers import AutoencoderKL

    widths = [channels * multiplier for multiplier in (1, 2, 4, 4)]
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
    )
    return Named(model)


class Named(torch.nn.Module):
    """An AutoencoderKL as a model of :class:`Step`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def last_layer(self):
        return self.model.decoder.conv_out.weight

    def training_forward(self, batch):
        posterior = self.model.encode(batch["image"]).latent_dist
        made = self.model.decode(posterior.sample()).sample
        return SimpleNamespace(reconstruction=made, bottleneck=SimpleNamespace(posterior=posterior))
