"""What a trial leaves for people: the bundle of its best epoch, and pictures of it on a few validation images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune.bucket import Bucket
from tune.events import OBJECTIVE
from tune.ledger import TrialRecord
from tune.mirror import pull
from tune.plan import SweepPlan
from tune.slot_plan import CHECKPOINTS

IMAGES = 4


class SweepFiles:
    """Files of the trials of a sweep, made on first demand in `trials/ID/` of its folder. Safe for several threads.

    Args:
        trials: as the ledger has them.
        materials: gives what the checkpoints were trained on, as `infosam.training.Materials`."""

    def __init__(self, plan: SweepPlan, trials: Mapping[str, TrialRecord], materials: Callable[[], Any]) -> None:
        self._plan = plan
        self._trials = trials
        self._materials = materials
        self._making = threading.Lock()  # the tracker's thread and the end of the sweep may ask at once

    def bundle(self, trial_id: str) -> Path | None:
        """The bundle of a trial's best epoch; None without checkpoint. Raises BundleError."""
        trial, plan = self._trials[trial_id], self._plan
        if trial.best is None or trial.best.checkpoint is None:
            return None
        out = self._folder(trial_id) / "bundle"
        with self._making:
            if not out.exists():  # `resume` drops those that a better epoch made stale
                from infosam.bundle import export_bundle

                card = {
                    "domain": plan.domain,
                    "sweep_id": plan.sweep_id,
                    "trial_id": trial_id,
                    "searched": dict(trial.values),
                    "protocol": plan.protocol,
                    "selected_by": f"{OBJECTIVE} with prompt {plan.config.run.train.select}",
                }
                # Not where it was written, which another machine may have called by another name.
                checkpoint = self._folder(trial_id) / CHECKPOINTS / Path(trial.best.checkpoint).name
                if plan.mirror is not None:  # it was written on another machine
                    pull(checkpoint.parent, Bucket(f"{plan.mirror}/{trial_id}"))
                export_bundle(checkpoint, self._materials(), out, card=card)
        return out

    def images(self, trial_id: str) -> Sequence[Path]:
        """Pictures of the bundle's prediction over the truth, one per validation image; none without bundle.

        Drawn on the CPU: the GPUs are the trials'."""
        bundle = self.bundle(trial_id)
        return draw_validation(bundle, self._plan, self._folder(trial_id) / "images") if bundle else ()

    def _folder(self, trial_id: str) -> Path:
        return self._plan.folder / "trials" / trial_id


def draw_validation(bundle: Path, plan: SweepPlan, out: Path) -> list[Path]:
    """Pictures in `out` of up to IMAGES validation images, the same ones for every bundle, under the prompt that the
    sweep chooses by."""
    import numpy as np
    import torch

    from infosam.data.prompts import box_of
    from infosam.data.store import open_dataset
    from infosam.overlay import draw_overlay
    from infosam.predict import Predictor
    from infosam.prompt_files import ImagePrompt

    store = open_dataset(plan.config.data)
    predictor = Predictor(bundle, checkpoint=plan.config.run.model.checkpoint, device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    files = []
    count = store.rows("val")
    for row in np.unique(np.linspace(0, count - 1, min(IMAGES, count)).round().astype(int)).tolist():
        sample = store.read("val", row)
        prompt = None
        if plan.config.run.train.select == "box" and sample.mask.any():
            x0, y0, x1, y1 = box_of(torch.from_numpy(sample.mask)).tolist()
            prompt = ImagePrompt(box=(x0, y0, x1, y1))
        predicted = predictor.predict(sample.image, prompt)
        picture = draw_overlay(sample.image, predicted, sample.mask, prompt.box if prompt else None)
        files.append(out / f"{row:04d}.png")
        picture.save(files[-1])
    return files
