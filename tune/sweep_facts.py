"""What is known of a sweep when its driver begins: the first event of its log."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import infosam
from infosam.data.card import read_card
from tune.config import SchedulerConfig
from tune.events import SweepStarted
from tune.plan import SweepPlan
from tune.resume import MIRROR_MARK

GIT_TIMEOUT_S = 10


def sweep_started(
    plan: SweepPlan, *, zero_shot: Mapping[str, float], base_sha256: str, resumed: bool = False
) -> SweepStarted:
    """The event that opens the log of a sweep, or goes on with it.

    Args:
        zero_shot: validation scores of the untuned model, as `val/box/dice`.
        base_sha256: of the base weights."""
    config = plan.config
    card = read_card(config.data)
    return SweepStarted(
        sweep_id=plan.sweep_id,
        domain=plan.domain,
        experiment=config.tracking.experiment,
        settings=plan.settings,
        params=plan.fixed_params(),
        tags={
            "data_digest": plan.data_digest,
            "seed": str(config.run.train.seed),
            "protocol": plan.protocol,
            "backbone": config.run.model.name,
            "base_sha256": base_sha256,
            "commit": source_commit(),
            "mlflow.source.name": f"infosam sweep {plan.sweep_id}",
            "mlflow.source.type": "LOCAL",
            **({"group": plan.group} if plan.group else {}),
            **({MIRROR_MARK: plan.mirror_mark} if plan.mirror else {}),
        },
        data={"name": card.domain, "digest": card.digest, "source": str(config.data), "counts": dict(card.counts)},
        zero_shot={**zero_shot, **_selected(zero_shot, config.run.train.select)},
        rungs=rungs(config.scheduler, config.run.train.epochs),
        resumed=resumed,
    )


def _selected(scores: Mapping[str, float], prompt: str) -> dict[str, float]:
    """The scores a trial is chosen by, under the names it reports them with."""
    names = {"val/dice": f"val/{prompt}/dice", "val/iou": f"val/{prompt}/iou"}
    return {short: scores[name] for short, name in names.items() if name in scores}


def rungs(scheduler: SchedulerConfig, epochs: int) -> tuple[int, ...]:
    """Epochs of the rungs, rising; the last one is the whole training."""
    found: list[int] = []
    epoch = float(scheduler.grace_epochs)
    while scheduler.kind == "asha" and epoch < epochs:
        found.append(int(epoch))
        epoch *= scheduler.reduction
    return (*found, epochs)


def source_commit() -> str:
    """The commit of the code that runs, with `-dirty` if files were changed; its version if it was installed."""
    root = Path(infosam.__file__).resolve().parents[1]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return infosam.__version__
        return done.stdout.strip()
    return infosam.__version__
