"""Runs of `does_infosam_help.py` on disk: each is trained once, its best epoch is scored on test once.

In a folder: settings.json, runs/JOB.json for each finished run, test/JOB.json for each that was scored on test,
test/DOMAIN/untuned.json, and checkpoints/JOB/ while one is trained or may still be scored. A run that was killed goes
on from its last epoch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compared_arms import Job, config_of
from results_file import commit, machine
from safetensors.torch import load_file

from infosam.baselines import ImageScore
from infosam.checkpoint import save_json
from infosam.config import ModelConfig
from infosam.data.card import read_card
from infosam.data.dataset import SegmentationDataset
from infosam.errors import Diverged
from infosam.evaluation import mean_scores, score, trivial_means
from infosam.run_state import best_checkpoint, checkpoints
from infosam.student import build_student
from infosam.training import Materials, load_materials, train

Scores = Mapping[str, Sequence[Mapping[str, float]]]  # prompt -> "dice" and "iou" of each image, in order


class Domain:
    """A data set with the frozen models; loaded when first used, then shared by all runs."""

    def __init__(self, name: str, folder: Path, model: ModelConfig) -> None:
        self.name, self._folder, self._model = name, folder, model

    @cached_property
    def images(self) -> int:
        """Of the train split."""
        return read_card(self._folder).counts["train"]

    @cached_property
    def materials(self) -> Materials:
        """For training; images and the teacher's encodings are remembered in it."""
        return load_materials(self._model, self._folder, device="cpu", baselines=False)

    @cached_property
    def test_set(self) -> SegmentationDataset:
        """For the one score at the end."""
        return SegmentationDataset(self.materials.train_set.store, "test", self.materials.base.spec.image_px)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run: the metrics of each epoch, and which epoch was the best on validation, 0 if it diverged."""

    job: Job
    best_epoch: int
    history: Sequence[Mapping[str, float]]
    commit: str
    machine: str

    @property
    def score(self) -> float:
        """Validation Dice of the best epoch, minus infinity if it diverged."""
        return self.history[self.best_epoch - 1]["val/dice"] if self.best_epoch else -math.inf

    @property
    def seconds(self) -> float:
        """That training and validation took."""
        return sum(epoch["cost/seconds"] for epoch in self.history)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Test scores of a run's best epoch."""

    job: Job
    epoch: int
    scores: Scores
    commit: str
    machine: str


class ArmRuns:
    """The folder.

    Args:
        settings: whatever decides the result of a run, with `common` and `overrides` of `config_of`; a folder with
            other settings is refused.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "settings.json"
        if not file.is_file():
            save_json(settings, file)
        elif (known := json.loads(file.read_text(encoding="utf-8"))) != json.loads(json.dumps(settings)):
            raise SystemExit(f"{folder}: has runs with {known}, now it would be {settings}; give another --work")

    def trained(self, job: Job) -> Trained | None:
        """A finished run, if it is there."""
        found = self._read("runs", job)
        return None if found is None else Trained(**{**found, "job": job})

    def tested(self, job: Job) -> Scored | None:
        """Its test scores, if they are there."""
        found = self._read("test", job)
        return None if found is None else Scored(**{**found, "job": job})

    def train(self, job: Job, domain: Domain) -> Trained:
        """A finished run, trained now unless it is there. One that diverges is finished too."""
        known = self.trained(job)
        if known is not None:
            return known
        folder, best_epoch, history = self._checkpoints(job), 0, []
        try:
            for _ in train(config_of(job, **self._recipe), domain.materials, checkpoint_dir=folder):
                pass
            found = checkpoints(folder)
            state = json.loads((found[max(found)] / "state.json").read_text(encoding="utf-8"))
            best_epoch, history = state["best_epoch"], state["history"]
        except Diverged as error:
            print(f"{job.name}: {error}", flush=True)
            self.drop(job)
        run = Trained(job=job, best_epoch=best_epoch, history=history, commit=commit(), machine=machine())
        self._write("runs", job, asdict(run))
        return run

    def test(self, job: Job, domain: Domain) -> Scored:
        """Test scores of a finished run's best epoch, scored now unless they are there."""
        known = self.tested(job)
        if known is None:
            known = self._test(job, domain)
            self._write("test", job, asdict(known))
        self.drop(job)
        return known

    def take_over(self, other: Path) -> list[Job]:
        """Copies finished runs, with their test scores, of another folder that would be trained just the same here, and
        tells which."""
        known = other / "settings.json"
        if not known.is_file():
            raise SystemExit(f"{other}: no comparison was made there; --known wants the --work of one")
        theirs = ArmRuns(other, json.loads(known.read_text(encoding="utf-8")))
        taken = []
        for file in sorted((other / "runs").rglob("*.json")):
            run = json.loads(file.read_text(encoding="utf-8"))
            job = Job(**run["job"])
            if config_of(job, **theirs._recipe) == config_of(job, **self._recipe) and self.trained(job) is None:
                tested = theirs.tested(job)
                if tested is not None:
                    self._write("test", job, asdict(tested))
                self._write("runs", job, run)
                taken.append(job)
        return taken

    def _test(self, job: Job, domain: Domain) -> Scored:
        folder = self._checkpoints(job)
        best = best_checkpoint(folder)
        if best is None:
            raise SystemExit(f"{folder}: its checkpoint is gone; delete {self._file('runs', job)} to train it again")
        student = build_student(domain.materials.base, config_of(job, **self._recipe))
        student.load_tensors(load_file(best / "student.safetensors"))
        found = score(student.sam.eval(), domain.test_set, device=domain.materials.device)
        return Scored(
            job=job,
            epoch=json.loads((best / "state.json").read_text(encoding="utf-8"))["epoch"],
            scores={prompt: [_numbers(image) for image in images] for prompt, images in found.items()},
            commit=commit(),
            machine=machine(),
        )

    def drop(self, job: Job) -> None:
        """Removes the checkpoints of a run that needs them no more."""
        shutil.rmtree(self._checkpoints(job), ignore_errors=True)

    def untuned(self, domain: Domain) -> dict[str, dict[str, float]]:
        """Mean test scores of "zero_shot" and of the best "trivial" mask, as `test/box/dice`."""
        file = self._folder / "test" / domain.name / "untuned.json"
        if not file.is_file():
            found = score(domain.materials.base.sam, domain.test_set, device=domain.materials.device)
            file.parent.mkdir(parents=True, exist_ok=True)
            untuned = {"zero_shot": mean_scores(found, "test"), "trivial": trivial_means(domain.test_set, "test")}
            save_json(
                {who: {name: round(value, 4) for name, value in means.items()} for who, means in untuned.items()}, file
            )
        known: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))
        return known

    @property
    def _recipe(self) -> dict[str, Any]:
        return {name: self._settings[name] for name in ("common", "overrides")}

    def _checkpoints(self, job: Job) -> Path:
        return self._folder / "checkpoints" / job.name

    def _file(self, kind: str, job: Job) -> Path:
        return self._folder / kind / f"{job.name}.json"

    def _read(self, kind: str, job: Job) -> dict[str, Any] | None:
        file = self._file(kind, job)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _write(self, kind: str, job: Job, content: Mapping[str, Any]) -> None:
        file = self._file(kind, job)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_json(content, file)


def _numbers(image: ImageScore) -> dict[str, float]:
    """Without the image's name, which belongs to the data."""
    return {"dice": image["dice"], "iou": image["iou"]}
