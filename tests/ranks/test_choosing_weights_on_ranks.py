"""Weights are chosen on two processes by what the leading one measures, and are its own."""

import sys
from pathlib import Path

import forked
import torch
from conftest import compose
from safetensors.torch import load_file

from distdiff.caching.stages import StageCache
from distdiff.classification.recipe import Recipe
from distdiff.classification.training import ClassifierTrainer
from distdiff.data.datasets import load_dataset
from distdiff.keys import build


def test_two_processes_keep_the_best_weights_of_the_leading_one(tmp_path: Path) -> None:
    """Also with RandAugment, whose module has parameters of its own."""
    quick = ["classifier.input_size=8", "train.steps=6", "augmentation=randaugment", "logger=none"]
    chosen = ["train.selection=validation", "callbacks=checkpoint", "optimizer.learning_rate=0.05"]
    every = ["callbacks.checkpoint.every_n_train_steps=1", "callbacks.checkpoint.save_top_k=-1"]
    overrides = [
        *quick,
        *chosen,
        *every,
        f"callbacks.checkpoint.dirpath={tmp_path}/saved",
        f"paths.output_dir={tmp_path}",
    ]
    command = [sys.executable, "experiments/train.py", *overrides]
    ended = forked.run_two_ranks(command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    config = compose("train", quick)
    classifiers = ClassifierTrainer(Recipe.of(config), config.trainer, StageCache(tmp_path / "none"))
    validation = load_dataset(config.dataset).validation
    accuracies, saved = {}, {}
    for path in (tmp_path / "saved").glob("*.ckpt"):
        held = torch.load(path, weights_only=True)["state_dict"]
        saved[path.stem] = {name.removeprefix("classifier."): each for name, each in held.items()}
        network = build(config.classifier, 10)
        network.load_state_dict({name: each for name, each in saved[path.stem].items() if name in network.state_dict()})
        accuracies[path.stem] = classifiers.accuracy(network.eval(), validation, "squash")
    assert len(accuracies) == 6
    best = max(sorted(accuracies), key=accuracies.get)  # the first of equal ones
    (kept,) = (tmp_path / "cache").glob("classifiers/*/model.safetensors")
    assert all(torch.equal(each, saved[best][name]) for name, each in load_file(kept).items())
