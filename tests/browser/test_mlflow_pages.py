"""What a person sees of a sweep and its champions in MLflow. Screenshots: INFOSAM_SCREENSHOTS names a folder."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

SORTED = f"orderByKey={quote('metrics.`val/dice`', safe='')}&orderByAsc=false"


@pytest.fixture(scope="module")
def runs(site: tuple[str, str]) -> list[Run]:
    """The trials of the sweep, best first."""
    client = MlflowClient(site[1])
    experiment = client.get_experiment_by_name("infosam")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["metrics.`val/dice` DESC"])
    return [run for run in found if "mlflow.parentRunId" in run.data.tags]


def test_the_sweep_and_its_trials_are_sorted_by_dice(page: Any, runs: list[Run]) -> None:
    page.open(f"experiments/{runs[0].info.experiment_id}/runs?{SORTED}")
    names = [run.info.run_name for run in runs]
    text = page.await_texts(*names, "Sort: val/dice", f"{len(runs) + 1} matching runs")
    shown = re.findall(r"^spores-t\d{4}-\S+", text, flags=re.MULTILINE)
    assert shown == names
    assert re.search(r"^spores$", text, flags=re.MULTILINE)  # the parent
    page.photograph("trials")


def test_five_trials_are_compared(page: Any, runs: list[Run]) -> None:
    best = [run.info.run_id for run in runs[:5]]
    experiments = json.dumps([runs[0].info.experiment_id])
    page.open(f"compare-runs?runs={quote(json.dumps(best))}&experiments={quote(experiments)}")
    page.await_texts("Comparing 5 Runs", "Parallel Coordinates Plot", "optim.lr", "peft.rank", "val/dice", *best)
    page.photograph("compare")


def test_pictures_of_all_trials_stand_side_by_side(page: Any, runs: list[Run]) -> None:
    page.open(f"experiments/{runs[0].info.experiment_id}/runs?compareRunsMode=CHART&{SORTED}")
    page.await_texts("validation", runs[0].info.run_name)
    page.await_pictures("validation", len(runs))
    page.photograph("pictures")


def test_the_model_page_shows_who_is_champion(page: Any) -> None:
    page.open("models/infosam-spores")
    page.await_texts("infosam-spores", "Version 3", "@ challenger", "@ champion", "@ previous")
    page.photograph("model")
