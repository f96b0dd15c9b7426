"""What torch.compile and the channels-last layout do to the denoising network's time, forward and backward.

    python experiments/studies/network_speed.py                                                      # the embedded generator
    python experiments/studies/network_speed.py --architecture sd14 --device cuda --dtype float16 --batch-size 8

The backward pass is that of guidance: the gradient of a scalar of the output with respect to the latents, with both passes of
classifier-free guidance in one batch. The variants take turns, so that a ratio is of calls beside each other. `compiled` is
`network.compile(fullgraph=True)`, as diffusers recommends it for a fixed size; what it costs to compile is said apart. Nothing
else may run on the machine. The networks of `sd14` and `sdxl` have random weights.
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from distdiff.generator.location import ASSETS, RANDOM, architectures, local_kind, model_path
from distdiff.generator.random_weights import random_pipeline

EMBEDDED = "tiny_digits"
VARIANTS = ("plain", "channels_last", "compiled")
WARM_UP = 3


class Network:
    """A denoising network in one of `VARIANTS`, with fixed inputs of `batch_size` samples."""

    def __init__(self, network: nn.Module, variant: str, batch_size: int) -> None:
        layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
        self.network = copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=layout)
        if variant == "compiled":
            self.network.compile(fullgraph=True)
        config, like = network.config, next(network.parameters())
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator).to(like)  # noqa: E731
        side = config.sample_size
        self.latents = draw(batch_size, config.in_channels, side, side).to(memory_format=layout)
        self.prompts = draw(2 * batch_size, 77, config.cross_attention_dim)
        self.timestep = torch.tensor(500, device=like.device)
        self.added = None
        if config.addition_embed_type == "text_time":  # Stable Diffusion XL's size and pooled prompt
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            self.added = {"text_embeds": draw(2 * batch_size, pooled), "time_ids": draw(2 * batch_size, 6)}

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self._output(self.latents)

    def backward(self) -> torch.Tensor:
        """The gradient with respect to the latents, of the forward pass and the backward pass."""
        latents = self.latents.clone().requires_grad_(True)
        return torch.autograd.grad(self._output(latents).float().square().mean(), latents)[0]

    def _output(self, latents: torch.Tensor) -> torch.Tensor:
        both = torch.cat([latents, latents])
        return self.network(both, self.timestep, self.prompts, added_cond_kwargs=self.added, return_dict=False)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default=EMBEDDED, choices=[EMBEDDED, *architectures()])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="separated by commas")
    options = parser.parse_args()
    chosen = options.variants.split(",")
    if chosen[0] != VARIANTS[0] or not set(chosen) <= set(VARIANTS):
        parser.error(
            f"--variants {options.variants} is not allowed: {VARIANTS[0]} and some of {', '.join(VARIANTS[1:])}"
        )
    network = load(options.architecture, getattr(torch, options.dtype), options.device)
    networks = {variant: Network(network, variant, options.batch_size) for variant in chosen}
    card = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{options.architecture}, {options.dtype}, batches of {options.batch_size}, {card}, torch {torch.__version__}"
    )
    for direction in ("forward", "backward"):
        calls = {variant: getattr(each, direction) for variant, each in networks.items()}
        compare(direction, calls, options.repeats)


def load(architecture: str, dtype: torch.dtype, device: str) -> nn.Module:
    """The denoising network of the embedded generator, or of an architecture with random weights."""
    if architecture == EMBEDDED:
        pipeline = StableDiffusionPipeline.from_pretrained(ASSETS / EMBEDDED, safety_checker=None)
        return pipeline.unet.to(device, dtype)
    model = f"{RANDOM}{architecture}"
    pipeline = random_pipeline(model_path(model, "--architecture"), local_kind(model), dtype, device)
    return pipeline.unet


def compare(direction: str, calls: dict[str, Callable[[], torch.Tensor]], repeats: int) -> None:
    """Prints each variant's median time, its ratio to the first variant's, and how far their results are apart."""
    results, seconds = {}, {variant: [] for variant in calls}
    for variant, call in calls.items():
        first = timed(call)
        results[variant] = call()
        for _ in range(WARM_UP):
            call()
        print(f"{direction}, {variant}: the first call took {first:.1f} s", flush=True)
    for _ in range(repeats):
        for variant, call in calls.items():
            seconds[variant].append(timed(call))
    reference = next(iter(calls))
    for variant, taken in seconds.items():
        ratio = median(one / other for one, other in zip(taken, seconds[reference], strict=True))
        apart = (results[variant].float() - results[reference].float()).abs().max() / results[
            reference
        ].float().abs().max()
        print(
            f"{direction}, {variant}: {1000 * median(taken):.1f} ms, {ratio:.2f} times {reference}, apart by {apart:.1e}"
        )


def timed(call: Callable[[], torch.Tensor]) -> float:
    began = time.perf_counter()
    result = call()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
