"""CLIP's zero-shot classifier, which says which of several texts an image shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from distdiff.caching.fingerprint import fingerprint_model
from distdiff.encoders.location import TRANSFORMERS_CONFIG, transformers_path
from distdiff.encoders.pretrained import load_pretrained, loading, some_of
from distdiff.encoders.processor import preprocessing_of
from distdiff.errors import UserError
from distdiff.hub import cached_folder, pinned

MOST_LOADED = 4  # models that a process keeps, for the rows and data seeds of a study
WITHOUT_HUB = "a folder with a CLIP model works without the hub"


@dataclass(frozen=True)
class ZeroShot:
    """Loads a CLIP model from a folder or the hub; `key` is the configuration key that names it, for messages."""

    key: str
    model: str
    revision: str | None

    @property
    def label(self) -> str:
        return f"{self.key}={self.model}"

    def identity(self) -> str:
        """Identifies the weights: the content of a folder, or a hub id with its commit."""
        return fingerprint_model(transformers_path(self.key, self.model), self.model, self.revision)

    def fetch(self) -> dict[str, Path]:
        """Downloads the model and loads it once; returns {`key=value`: cache folder}, empty for a local folder."""
        if transformers_path(self.key, self.model) is not None:
            return {}
        self.load()
        return {self.label: cached_folder(self.model, TRANSFORMERS_CONFIG, pinned(self.model, self.revision).resolved)}

    def load(self) -> "ZeroShotClassifier":
        """The model, which each process loads once. Raises `UserError` if it cannot be loaded, or lacks CLIP's texts."""
        return _loaded(self, self.identity())

    def _load(self) -> "ZeroShotClassifier":
        path = transformers_path(self.key, self.model)
        where: Path | str = path or self.model
        commit = None
        if path is None:
            with loading(self.label, True, WITHOUT_HUB):
                commit = pinned(self.model, self.revision).resolved
        network, lacking = load_pretrained(CLIPModel, self.label, where, commit, WITHOUT_HUB)
        if lacking:
            raise UserError(
                f"{self.label} is no CLIP model of images and texts: it lacks fitting weights for {some_of(lacking)}"
            )
        with loading(self.label, path is None, WITHOUT_HUB):
            tokenizer = AutoTokenizer.from_pretrained(
                str(where), trust_remote_code=False, **({} if commit is None else {"revision": commit})
            )
        return ZeroShotClassifier(network, tokenizer, preprocessing_of(self.label, network, where, commit))


@lru_cache(maxsize=MOST_LOADED)
def _loaded(source: ZeroShot, identity: str) -> "ZeroShotClassifier":
    """The model with this identity, so that a folder with other files by now is loaded again."""
    return source._load()


class ZeroShotClassifier(nn.Module):
    """The probabilities of texts, given an image, as CLIP computes them (Radford et al., 2021)."""

    def __init__(self, network: CLIPModel, tokenizer, preprocess) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocess = preprocess

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """The embeddings (n, D) of texts, with length 1. A text that is too long is cut."""
        most = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        tokens = tokens.to(self.network.device)
        pooled = self.network.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
        return F.normalize(self.network.text_projection(pooled), dim=-1)

    def of_classes(self, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """The embedding (classes, D) of each class: the mean of those of its prompts, with length 1."""
        return F.normalize(torch.stack([self.of_texts(own).mean(0) for own in prompts]), dim=-1)

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """The probability (B, classes) of each class for images (B, 3, H, W) in [0, 1].

        It is the softmax of the cosines with the embeddings of the `classes` (classes, D), times CLIP's own scale.
        """
        pixels = self.preprocess(images.to(classes.device, classes.dtype))
        pooled = self.network.vision_model(pixel_values=pixels).pooler_output
        embedded = F.normalize(self.network.visual_projection(pooled), dim=-1)
        return (self.network.logit_scale.exp() * embedded @ classes.T).softmax(-1)
