"""A whole training run out of `reference_step.py`: the other side of `sweep.py`.

The loop most people write: everything is loaded for the trial, every image is prepared, every step takes the released
trainer's way in float32 on one thread, and after each epoch the val images are scored one by one. Order of the images,
learning rates, clipping and seeds are those of `infosam.training`, so that both sides train the same configuration. It
keeps no checkpoints, which is in its favour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from reference_step import ReferenceStep

from infosam.config import RunConfig
from infosam.data.dataset import SegmentationDataset, collate
from infosam.data.store import open_dataset
from infosam.evaluation import mean_scores, score
from infosam.optimisation import descend, learning_rate, make_optimizer
from infosam.sam.weights import load_base


def epochs(run: Mapping[str, Any], data: str) -> Iterator[dict[str, float]]:
    """Mean loss and val scores of each epoch of `run`, a RunConfig as JSON."""
    torch.set_num_threads(1)
    config, device = RunConfig.model_validate(run), torch.device("cpu")
    store, base = open_dataset(Path(data)), load_base(config.model)
    train_set = SegmentationDataset(store, "train", base.spec.image_px)
    val_set = SegmentationDataset(store, "val", base.spec.image_px)
    side = ReferenceStep(base, config, device)
    optimizer = make_optimizer(side.student, config.optim)
    steps = len(train_set) // config.train.batch_size
    for epoch in range(config.train.epochs):
        side.student.sam.train()
        total = 0.0
        generator = torch.Generator().manual_seed(config.train.seed * 1_000_003 + epoch)
        order = torch.randperm(len(train_set), generator=generator).tolist()
        for number in range(steps):
            rate = learning_rate(config.optim, epoch * steps + number, config.train.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            rows = order[number * config.train.batch_size :][: config.train.batch_size]
            optimizer.zero_grad(set_to_none=True)
            loss = side.loss(collate([train_set[row] for row in rows]))
            loss.backward()
            descend(optimizer, config.optim.clip_norm)
            total += loss.item()
        side.student.sam.eval()
        values = mean_scores(score(side.student.sam, val_set, device=device, batch_size=1), "val")
        yield values | {"epoch": epoch + 1, "loss": total / steps, "val/dice": values["val/box/dice"]}
