"""Expansion as a Lightning module: `Trainer.predict` gives the module batches of work items."""

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from distdiff.expansion.memory import WithinMemory
from distdiff.expansion.plan import ExpansionPlan
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer


class ExpansionModule(L.LightningModule):
    """Turns each batch of work items into images; the callback `ExpandedWriter` saves them."""

    def __init__(self, synthesizer: Synthesizer, together: bool = False) -> None:
        """`together`: whether the images of a batch depend on each other, so that a batch must not be divided."""
        super().__init__()
        self.synthesizer = synthesizer
        self.within_memory = WithinMemory(synthesizer, together)

    def transfer_batch_to_device(self, batch: list[WorkItem], *_: object) -> list[WorkItem]:
        return batch  # items hold only names and numbers; the synthesizer owns the tensors

    def predict_step(self, batch: list[WorkItem], _: int) -> Synthesized:
        return self.within_memory(batch).judged()


class PlannedBatches(Dataset):
    """A dataset with one planned batch per index: the plan, not the loader, decides which items share a batch."""

    def __init__(self, plan: ExpansionPlan, batches: list[np.ndarray]) -> None:
        """Each array in `batches` holds the indices of one batch's items in `plan`."""
        self.plan = plan
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[WorkItem]:
        return [self.plan[item] for item in self.batches[index]]

    def loader(self) -> DataLoader:
        return DataLoader(self, batch_size=None, collate_fn=list, generator=torch.Generator())
