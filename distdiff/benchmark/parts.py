"""Divides what making images takes (seconds, or FLOPs) among the parts of the program that take it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from distdiff.expansion.writer import ExpandedWriter
from distdiff.methods.synthesis import Synthesizer

NETWORK, DECODER, ENCODER = "network", "decoder", "encoder"
INPUT, ENCODING, WRITING, REST = "input", "image files", "writing", "rest"
BACKWARD = " backward"  # behind the name of a part: the backward pass through it


class PartMeter:
    """Adds what each part takes of something that only grows, such as time.

    `reading()` returns how much has been taken so far. `amounts` has the sum of each part, and `calls` how often the
    part was entered. A part inside another part counts for itself, not for the part around it; but φ is one part, though it may
    run the generator's network (`encoder=generator`).
    """

    def __init__(self, reading: Callable[[], float]) -> None:
        self.amounts: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._reading = reading
        self._entered = [REST]
        self._last: float | None = None

    def start(self) -> None:
        self._last = self._reading()

    def stop(self) -> None:
        self._book()
        self._last = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the block takes belongs to the part `name`. Outside of `start` and `stop`, nothing is measured."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        self._book()
        self._entered.append(name)
        if self._last is not None:
            self.calls[name] += 1

    def leave(self) -> None:
        self._book()
        self._entered.pop()

    def measured(self, name: str, call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """`call`, a function of a tensor to a tensor, whose forward and backward passes are the parts of this `name`."""

        def measuring(inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            if name != ENCODER and self._entered[-1] == ENCODER:
                return call(inputs, *arguments, **options)
            differentiated = torch.is_grad_enabled() and inputs.requires_grad
            with self.part(name):
                if not differentiated:
                    return call(inputs, *arguments, **options)
                outputs = call(_Boundary.apply(inputs, self.leave), *arguments, **options)
            return _Boundary.apply(outputs, lambda: self.enter(name + BACKWARD))

        return measuring

    def _book(self) -> None:
        if self._last is not None:
            now = self._reading()
            self.amounts[self._entered[-1]] += now - self._last
            self._last = now


class _Boundary(torch.autograd.Function):
    """The identity. Calls `passed` when the backward pass gets here."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor, passed: Callable[[], None]) -> torch.Tensor:
        context.passed = passed
        return tensor.view_as(tensor)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        context.passed()
        return gradient, None


class MeterParts(Callback):
    """Measures the parts of an expansion with `meter` while Lightning makes the images."""

    def __init__(self, meter: PartMeter) -> None:
        super().__init__()
        self.meter = meter
        self._undoing = ExitStack()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._measure_synthesizer(pl_module.synthesizer)
        for callback in trainer.callbacks:
            if isinstance(callback, ExpandedWriter):
                self._set(callback, "in_threads", False)  # otherwise nothing could be told apart
                self._set(callback, "encode", _in_part(self.meter, ENCODING, callback.encode))
                self._set(callback.storage, "write", _in_part(self.meter, WRITING, callback.storage.write))
        self.meter.start()
        self.meter.enter(INPUT)

    def on_predict_batch_start(self, *_: Any) -> None:
        self.meter.leave()

    def on_predict_batch_end(self, *_: Any) -> None:
        self.meter.enter(INPUT)  # until the next batch is there

    def on_predict_end(self, *_: Any) -> None:
        self.meter.leave()
        self.meter.stop()
        self._undoing.close()

    def on_exception(self, *_: Any) -> None:
        self._undoing.close()

    def _measure_synthesizer(self, synthesizer: Synthesizer) -> None:
        generator, energy = getattr(synthesizer, "generator", None), getattr(synthesizer, "image_energy", None)
        if generator is not None:
            self._wrap(generator.family, "output", NETWORK)
            self._wrap(generator, "decode", DECODER)
            if generator.guidance_decoder is not None:  # otherwise `decode_for_guidance` calls `decode`
                self._wrap(generator, "decode_for_guidance", DECODER)
        if energy is not None:
            self._wrap(energy.encoder, "features", ENCODER)
            self._wrap(energy.encoder, "extract", ENCODER)  # `transform_official` calls nothing else
        if hasattr(synthesizer, "latents"):
            self._set(synthesizer.latents, "select", _in_part(self.meter, INPUT, synthesizer.latents.select))

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        self._set(owner, name, self.meter.measured(part, getattr(owner, name)))

    def _set(self, owner: Any, name: str, value: Any) -> None:
        """Sets an attribute of one object until the measurement ends."""
        had, before = name in vars(owner), vars(owner).get(name)
        object.__setattr__(owner, name, value)  # a network would register a function as something of its own
        self._undoing.callback(
            object.__setattr__ if had else object.__delattr__, owner, name, *([before] if had else [])
        )


def _in_part(meter: PartMeter, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def measuring(*arguments: Any, **options: Any) -> Any:
        with meter.part(name):
            return call(*arguments, **options)

    return measuring
