"""The end of a sweep: the best trial is scored on test once, drawn, and offered for promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tune.champions import Challenger, Promotion, promote
from tune.events import State
from tune.mlflow_writer import SweepSummary
from tune.plan import SweepPlan
from tune.results import SweepOutcome, draw_overlays, gains_of, note
from tune.tracking import Tracker, new_client


def crown(outcome: SweepOutcome, plan: SweepPlan, materials: Any, tracker: Tracker, console: Console) -> None:
    """Fills in gains, picture and promotion of `outcome.champion`. After Ctrl-C nothing is scored on test or promoted.

    Args:
        materials: as `infosam.training.Materials`, with baselines.
    """
    assert outcome.champion is not None
    assert outcome.champion.best is not None
    outcome.gains = gains_of(outcome.champion.best.values, materials.zero_shot, materials.trivial, None)
    outcome.protocol = plan.protocol
    if outcome.bundle is None:
        outcome.unregistered = "the trial left no checkpoint"
    elif outcome.interrupted:
        outcome.unregistered = "the sweep was interrupted, so its best trial was not scored on test or compared"
    else:
        console.print("Scoring the best trial on the test images, once", style="dim")
        _score_on_test(outcome, plan, materials, outcome.bundle)
        outcome.promotion, outcome.unregistered = _promote(outcome, plan, materials, tracker)


def summarise(outcome: SweepOutcome, state: State) -> SweepSummary:
    """What the parent run says at the end."""
    tags = {"trials": str(len(outcome.ledger.trials)), "stop_reason": "user" if state == "KILLED" else "completed"}
    if state == "FAILED":
        tags |= {"stop_reason": "error", "error": outcome.first_error or "the sweep ended early"}
    metrics: dict[str, float] = {}
    if outcome.champion is not None and outcome.champion.best is not None:
        tags["best_trial"] = outcome.champion.trial_id
        metrics |= {name: value for name, value in outcome.champion.best.values.items() if name.startswith("val/")}
    for gain in outcome.gains:
        prefix = f"{gain.split}/{gain.prompt}"
        metrics |= {
            f"{prefix}/dice": gain.adapter,
            f"{prefix}/iou": gain.adapter_iou,
            f"delta/{prefix}/dice_vs_zero_shot": gain.adapter - gain.zero_shot,
            f"delta/{prefix}/dice_vs_trivial": gain.adapter - gain.trivial,
        }
    if outcome.promotion is not None:
        tags["promotion"] = "promoted" if outcome.promotion.promoted else "refused"
        tags["promotion_reasons"] = "; ".join(outcome.promotion.reasons)
    elif outcome.unregistered:
        tags |= {"promotion": "not tried", "promotion_reasons": outcome.unregistered}
    files = (outcome.overlay,) if outcome.overlay else ()
    return SweepSummary(state=state, note=note(outcome), tags=tags, metrics=metrics, files=files)


def _score_on_test(outcome: SweepOutcome, plan: SweepPlan, materials: Any, bundle: Path) -> None:
    from infosam.evaluation import evaluate_bundle

    assert outcome.champion is not None
    assert outcome.champion.best is not None
    data, model = plan.config.data, plan.config.run.model
    table = evaluate_bundle(bundle, data, "test", device=plan.device, checkpoint=model.checkpoint)
    outcome.gains = gains_of(outcome.champion.best.values, materials.zero_shot, materials.trivial, table)
    outcome.overlay = draw_overlays(bundle, data, plan.folder / "overlay.png", model=model, device=plan.device)


def _promote(
    outcome: SweepOutcome, plan: SweepPlan, materials: Any, tracker: Tracker
) -> tuple[Promotion | None, str | None]:
    """The decision, or why there was none."""
    from mlflow.exceptions import MlflowException

    champion = outcome.champion
    assert champion is not None
    assert champion.best is not None
    run_id = tracker.run_of(champion.trial_id) if tracker.flush() else None
    if run_id is None:
        return None, f"MLflow at {plan.tracking_uri} did not take the records"
    try:
        artifacts = new_client(plan.tracking_uri).get_run(run_id).info.artifact_uri
        challenger = Challenger(
            domain=plan.domain,
            prompt=plan.config.run.train.select,
            scores={key: value for key, value in champion.best.values.items() if key.startswith("val/")},
            zero_shot=materials.zero_shot,
            trivial=materials.trivial,
            data_digest=plan.data_digest,
            base_sha256=materials.base_sha256,
            bundle_uri=f"{artifacts}/bundle",
            run_id=run_id,
            tags={
                "sweep_id": plan.sweep_id,
                "trial_id": champion.trial_id,
                "seed": str(outcome.seed),
                "protocol": plan.protocol,
            },
        )
        return promote(plan.tracking_uri, challenger, lambda bundle: _rescore(bundle, plan)), None
    except MlflowException as error:
        return None, f"MLflow refused: {error}"


def _rescore(bundle: Path, plan: SweepPlan) -> dict[str, float]:
    """Validation scores of another bundle on this sweep's data."""
    from infosam.evaluation import evaluate_bundle

    model = plan.config.run.model
    table = evaluate_bundle(bundle, plan.config.data, "val", device=plan.device, checkpoint=model.checkpoint)
    scores: dict[str, float] = {}
    for row in table.rows:
        if row.model == "adapter":
            scores |= {f"val/{row.prompt}/dice": row.dice, f"val/{row.prompt}/iou": row.iou}
    return scores
