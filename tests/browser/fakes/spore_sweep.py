"""A finished sweep over made-up pictures of spores, in a few seconds and without training: scores and masks are drawn
by a formula, everything else goes the product's own way, from event log to MLflow.

python spore_sweep.py FOLDER: makes it in a results folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infosam.overlay import draw_overlay
from infosam.synthetic.domains import spores
from tune.event_log import NAME, EventLog, read_events
from tune.events import EpochReported, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from tune.home import Home
from tune.mlflow_writer import MlflowWriter
from tune.tracking import new_client

TRIALS, EPOCHS, PICTURES = 8, 6, 3
BEGAN_AT = 1_790_000_000.0
SIDE_PX = 256
ZERO_SHOT = 0.61
BEST = f"t{TRIALS - 1:04d}"


def dice(trial: int, epoch: int) -> float:
    """Rises with the epoch, and with the trial to a level of its own."""
    return ZERO_SHOT + (0.05 + 0.03 * trial) * (1 - 0.5**epoch)


def values(trial: int) -> dict[str, Any]:
    return {"peft.kind": ("lora", "adapter")[trial % 2], "peft.rank": 2 + trial, "optim.lr": 10 ** (-4 + 0.2 * trial)}


def make_log(folder: Path) -> Path:
    """Writes the event log; its path."""
    folder.mkdir(parents=True)
    with contextlib.closing(EventLog(folder / NAME)) as log:
        log(
            SweepStarted(
                sweep_id="spores",
                domain="spores",
                experiment="infosam",
                settings="data: spores\n",
                params={"train.epochs": EPOCHS, "model.name": "vit_nano"},
                tags={"data_digest": "5" * 64, "seed": "0", "protocol": "strict", "commit": "made up"},
                data={"name": "spores", "digest": "5" * 64, "source": "spores", "counts": {"train": 32, "val": 16}},
                zero_shot={"val/dice": ZERO_SHOT},
                rungs=(2, EPOCHS),
                at=BEGAN_AT,
            )
        )
        for trial in range(TRIALS):
            at = BEGAN_AT + 60 * trial
            log(TrialStarted(trial_id=f"t{trial:04d}", values=values(trial), at=at))
            for epoch in range(1, EPOCHS + 1):
                scores = {"val/dice": dice(trial, epoch), "val/iou": dice(trial, epoch) - 0.1}
                scores |= {"loss/total": 1 - dice(trial, epoch), "cost/epoch_s": 9.0}
                log(
                    EpochReported(
                        trial_id=f"t{trial:04d}",
                        epoch=epoch,
                        values=scores,
                        checkpoint=None,
                        is_best=True,
                        at=at + 9 * epoch,
                    )
                )
            log(TrialEnded(trial_id=f"t{trial:04d}", state="FINISHED", reason="completed", at=at + 57))
        note = f"## spores\n\nBest trial: {BEST}, val Dice {dice(TRIALS - 1, EPOCHS):.3f}"
        log(SweepEnded(state="FINISHED", reason="completed", note=note, at=BEGAN_AT + 600))
    return folder / NAME


class Pictures:
    """The same pictures for every trial; a better trial's mask is nearer to the truth. No bundles."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bundle(self, trial_id: str) -> Path | None:
        return None

    def images(self, trial_id: str) -> Sequence[Path]:
        rng = np.random.default_rng(1)
        out = self._folder / trial_id
        out.mkdir(parents=True)
        for number in range(PICTURES):
            rgb, truth = spores(SIDE_PX, rng)
            shift_px = 2 * (TRIALS - 1 - int(trial_id[1:]))
            draw_overlay(rgb, np.roll(truth, (shift_px, shift_px), (0, 1)), truth).save(out / f"{number:04d}.png")
        return sorted(out.iterdir())


def make_sweep(home: Home) -> None:
    """The sweep `spores` in a results folder, with its records in the embedded store."""
    log = make_log(home.sweeps / "spores")
    writer = MlflowWriter(
        new_client(home.tracking_uri),
        folder=log.parent,
        artifacts=home.artifacts,
        files=Pictures(home.folder / "pictures"),
    )
    for event, _ in read_events(log):
        writer.take(event)
    writer.write()


if __name__ == "__main__":
    make_sweep(Home(folder=Path(sys.argv[1]).absolute()))
