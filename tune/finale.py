"""The end of a sweep: the best trial is scored on test once, drawn, and offered for promotion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from infosam.errors import UserError
from tune.champions.contest import Contest
from tune.champions.promotion import Challenger, Promotion, promote
from tune.events import Listener, PromotionDecided, ScoredOnTest, State, StopReason, SweepEnded
from tune.finals_report import finals_metrics
from tune.kept_scores import TEST_SCORES, save_scores, scores_of
from tune.note import note
from tune.plan import SweepPlan
from tune.results import SweepOutcome, draw_overlays, gains_of, measured
from tune.tracking import Tracker

if TYPE_CHECKING:
    from infosam.evaluation import EvaluationTable

OVERLAY = "overlay.png"


def crown(
    outcome: SweepOutcome, plan: SweepPlan, materials: Any, tracker: Tracker, console: Console, tell: Listener
) -> None:
    """Fills in gains, picture and promotion of `outcome.champion`. After Ctrl-C nothing is scored on test or promoted.

    Args:
        materials: as `infosam.training.Materials`, with baselines.
        tell: hears of the decision.
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
        if outcome.ledger.test is None:
            console.print("Scoring the best trial on the test images, once", style="dim")
        _score_on_test(outcome, plan, materials, outcome.bundle)
        if outcome.ledger.test is None:
            tell(ScoredOnTest(trial_id=outcome.champion.trial_id))
        outcome.promotion, outcome.unregistered = _promote(outcome, plan, outcome.bundle, tracker)
        if outcome.promotion is not None:
            decided = outcome.promotion
            tell(
                PromotionDecided(
                    trial_id=outcome.champion.trial_id,
                    promoted=decided.promoted,
                    model=decided.model,
                    version=decided.version,
                    reasons=decided.reasons,
                )
            )


def recall(outcome: SweepOutcome, plan: SweepPlan) -> None:
    """Fills in what the end of a sweep found, from its log and folder; nothing is scored or decided again."""
    from infosam.bundle import read_bundle

    decided, champion = outcome.ledger.promotion, outcome.champion
    outcome.protocol = plan.protocol
    if decided is not None and decided.version is not None:
        outcome.promotion = Promotion(
            promoted=decided.promoted, model=decided.model, version=decided.version, reasons=tuple(decided.reasons)
        )
    elif outcome.ledger.end is not None:
        outcome.unregistered = outcome.ledger.end.tags.get("promotion_reasons")
    overlay = plan.folder / OVERLAY
    outcome.overlay = overlay if overlay.is_file() else None
    if champion is None or champion.best is None:
        return
    bundle = plan.folder / "trials" / champion.trial_id / "bundle"
    if bundle.is_dir():
        outcome.bundle = bundle
        metrics = read_bundle(bundle).card["metrics"]
        table = scores_of(bundle)
        outcome.gains = gains_of(champion.best.values, metrics["zero_shot"], metrics["trivial"], table)
        outcome.measured = measured(table)


def summarise(outcome: SweepOutcome, state: State) -> SweepEnded:
    """What the parent run says at the end."""
    reasons: dict[State, StopReason] = {"FINISHED": "completed", "KILLED": "user", "FAILED": "error"}
    tags = {"trials": str(len(outcome.ledger.ranking()))}
    if state == "FAILED":
        tags["error"] = outcome.first_error or "the sweep ended early"
    metrics: dict[str, float] = {}
    if outcome.champion is not None and outcome.champion.best is not None:
        tags["best_trial"] = outcome.champion.trial_id
        metrics |= {name: value for name, value in outcome.champion.best.values.items() if name.startswith("val/")}
    if outcome.finals is not None:
        metrics |= finals_metrics(outcome.finals)
    for gain in outcome.gains:
        prefix = f"{gain.split}/{gain.prompt}"
        metrics |= {
            f"{prefix}/dice": gain.adapter,
            f"{prefix}/iou": gain.adapter_iou,
            f"delta/{prefix}/dice_vs_zero_shot": gain.adapter - gain.zero_shot,
            f"delta/{prefix}/dice_vs_trivial": gain.adapter - gain.trivial,
        }
    metrics |= {f"test/{name}": value for name, value in outcome.measured.items()}
    if outcome.promotion is not None:
        tags["promotion"] = "promoted" if outcome.promotion.promoted else "refused"
        tags["promotion_reasons"] = "; ".join(outcome.promotion.reasons)
    elif outcome.unregistered:
        tags |= {"promotion": "not tried", "promotion_reasons": outcome.unregistered}
    files = (outcome.overlay.name,) if outcome.overlay else ()
    reason: StopReason = "budget" if state == "FINISHED" and outcome.ledger.budget else reasons[state]
    return SweepEnded(state=state, reason=reason, note=note(outcome), tags=tags, metrics=metrics, files=files)


def _score_on_test(outcome: SweepOutcome, plan: SweepPlan, materials: Any, bundle: Path) -> None:
    assert outcome.champion is not None
    assert outcome.champion.best is not None
    table = _test_table(plan, bundle, is_known=outcome.ledger.test is not None)
    outcome.gains = gains_of(outcome.champion.best.values, materials.zero_shot, materials.trivial, table)
    outcome.measured = measured(table)
    out, model = plan.folder / OVERLAY, plan.config.run.model
    outcome.overlay = draw_overlays(bundle, plan.config.data, out, model=model, device=plan.device)


def _test_table(plan: SweepPlan, bundle: Path, *, is_known: bool) -> EvaluationTable:
    """Scores on test, kept beside the bundle: a sweep that goes on after its end reads them and does not look again."""
    from infosam.assessment import measure
    from infosam.evaluation import evaluate_bundle

    kept = scores_of(bundle)
    if kept is not None:
        return kept
    if is_known:
        raise UserError(
            f"{bundle.with_name(TEST_SCORES)}: the best trial was scored on test before and never is twice; restore "
            "this file"
        )
    checkpoint = plan.config.run.model.checkpoint
    table = evaluate_bundle(
        bundle, plan.config.data, "test", device=plan.device, checkpoint=checkpoint, measure=measure
    )
    save_scores(table, bundle)
    return table


def _promote(
    outcome: SweepOutcome, plan: SweepPlan, bundle: Path, tracker: Tracker
) -> tuple[Promotion | None, str | None]:
    """The decision, or why there was none."""
    champion = outcome.champion
    assert champion is not None
    assert champion.best is not None
    run_id = tracker.run_of(champion.trial_id) if tracker.flush() else None
    if run_id is None:
        return None, f"MLflow at {plan.tracking_uri} did not take the records"
    run, best = plan.config.run, champion.best.values
    contest = Contest(
        data=plan.config.data, prompt=run.train.select, device=plan.device, checkpoint=run.model.checkpoint
    )
    # Under another protocol than the rule's a trial reports numbers that are not comparable.
    reported = best.get(f"val/{contest.prompt}/dice") if run.model.protocol == "strict" else None
    try:
        challenger = Challenger(
            domain=plan.domain,
            bundle=bundle,
            run_id=run_id,
            evidence=contest.evidence(bundle, reported=reported),
        )
        return promote(plan.tracking_uri, challenger, contest.rescore), None
    except UserError as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001 - a store's own library may raise anything, and the result must be shown
        return None, f"{type(error).__name__}: {error}"
