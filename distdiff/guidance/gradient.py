"""Computes each sample's gradient of the energy, also through half-precision networks.

A gradient that is not finite is replaced by zeros.
"""

from collections.abc import Sequence

import torch

# Backward passes through float16 networks underflow below 6e-8 and overflow above 65,504, so the energy is first scaled
# up (loss scaling; Micikevicius et al., 2018). A sample whose gradient overflows is retried at the next smaller scale.
LOSS_SCALES = {torch.float16: (2.0**14, 2.0**7, 1.0)}


def energy_gradient(
    energies: torch.Tensor, inputs: Sequence[torch.Tensor], network_dtype: torch.dtype
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The gradient of the energies with respect to each of `inputs` (B, …), and whether each sample's gradient
    is finite (B,).

    A gradient that is not finite is replaced by zeros. The energies (B,) are summed, not averaged, so that each
    sample's gradient is independent of the batch. `network_dtype` is the lowest precision that the backward pass runs
    in.
    """
    scales = LOSS_SCALES.get(network_dtype, (1.0,))
    gradients = [torch.zeros_like(tensor) for tensor in inputs]
    finite = torch.zeros(len(energies), dtype=torch.bool, device=energies.device)
    for attempt, scale in enumerate(scales, start=1):
        scaled = torch.autograd.grad((energies * scale).sum(), inputs, retain_graph=attempt < len(scales))
        fits = torch.stack([tensor.flatten(1).isfinite().all(1) for tensor in scaled]).all(0) & energies.isfinite()
        chosen = fits & ~finite
        gradients = [
            torch.where(per_sample(chosen, new), new / scale, old) for new, old in zip(scaled, gradients, strict=True)
        ]
        finite |= fits
        if attempt < len(scales) and finite.all():  # reading `finite` waits for the device
            break
    return gradients, finite


def unit_norm(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Divides each sample's gradient by its Euclidean norm over all inputs; a gradient of zero stays zero."""
    norm = torch.linalg.vector_norm(torch.cat([tensor.flatten(1) for tensor in gradients], dim=1), dim=1)
    norm = torch.where(norm > 0, norm, 1)
    return [tensor / per_sample(norm, tensor) for tensor in gradients]


def relative(gradients: torch.Tensor, latents: torch.Tensor, rho: float) -> torch.Tensor:
    """ρ ‖z‖ g / ‖g‖ for each sample's gradient g and latents z, both (B, …); zero for a gradient of zero."""
    (directions,) = unit_norm([gradients])
    return rho * per_sample(torch.linalg.vector_norm(latents.flatten(1), dim=1), latents) * directions


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Reshapes `values` (B,) to (B, 1, …), so that the result broadcasts over `like` (B, …)."""
    return values.view(-1, *[1] * (like.dim() - 1))
