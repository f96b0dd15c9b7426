"""Gradients of the energy in half precision against those in float32."""

import pytest
import torch
from bench import CLASS_WEIGHT, CLASSES, GROUP_WEIGHT, random_prototypes, smooth_classifier
from conftest import compose

from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.pipelines import load_generator
from distdiff.generator.precision import whole_float32
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.direct import Direct

pytestmark = pytest.mark.gpu
SIZES = {"cpu": ("toy", 64), "cuda": ("sd14", 256)}
BATCH = 3
# dtype -> the least cosine with the gradient in float32, and the largest difference of the norms, as a share
BOUNDS = {"float16": (0.99, 0.05), "bfloat16": (0.9, 0.2)}


def gradient(device: torch.device, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient (B, C, h, w) of the energy with respect to z_t, and whether each sample's is finite (B,)."""
    architecture, size = SIZES[device.type]
    given = [f"generator.architecture={architecture}", f"generator.resolution={size}", f"generator.dtype={dtype}"]
    keys = compose("expand", ["generator=random", "generator.num_steps=10", *given]).generator
    generator = load_generator(keys, device)
    torch.manual_seed(0)
    encoder = GuideEncoder(smooth_classifier())
    prototypes = random_prototypes(encoder.classifier.feature_dim, torch.float32)
    energy = HierarchicalEnergy(prototypes, class_weight=CLASS_WEIGHT, group_weight=GROUP_WEIGHT)
    latents = torch.randn(BATCH, *generator.latent_shape).to(device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    method = Direct(rho=1.0)
    schedule = method.schedule(generator.num_steps, 0.5)
    denoiser = generator.denoiser(generator.embed(["a", "b", "c"]))
    batch = GuidedBatch(denoiser, ImageEnergy(encoder, energy).to(device), labels, schedule, [], generator.dtype)
    with whole_float32(generator.dtype):
        return method.latent_gradient(latents, schedule.first_guided, batch).gradient.cpu(), batch.guided.cpu()


@pytest.fixture(scope="module")
def exact(device: torch.device) -> torch.Tensor:
    return gradient(device, "float32")[0]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_gradient_in_half_precision_points_where_that_in_float32_does(
    device: torch.device, exact: torch.Tensor, dtype: str, record_property
) -> None:
    rough, finite = gradient(device, dtype)
    assert finite.all()
    least_cosine, most_difference = BOUNDS[dtype]
    cosine = torch.cosine_similarity(rough.flatten(1), exact.flatten(1))
    ratio = rough.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    record_property("cosine", cosine.tolist())
    record_property("norm_ratio", ratio.tolist())
    assert cosine.min() > least_cosine
    assert (ratio - 1).abs().max() < most_difference
