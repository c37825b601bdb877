"""The plots of a report: Optuna's own where it has one. Where there is too little for a plot, a sentence says why."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.exceptions import ExperimentalWarning

from tune.ledger import TrialRecord
from tune.report.gains import PromptGain
from tune.report.record import Record, epoch_seconds, values_over_epochs
from tune.report.study import Second, common_settings, study_of

Plot: TypeAlias = "go.Figure | str"
"""A plot, or why there is none."""

DICE = "val Dice"
# Okabe-Ito colours: told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#B0B0B0"
FEWEST_FOR_IMPORTANCE = 8
CURVES_WITH_NAMES = 20
INFORMATION = ("info/entropy_teacher", "info/entropy_student", "info/mutual_information")
SECONDS_OBJECTIVE, SIZE_OBJECTIVE = "seconds of an epoch", "adapter in MB"


def gain_per_image(gain: PromptGain | None) -> Plot:
    """Gain over zero-shot of each test image, from the worst to the best."""
    if gain is None or gain.differences is None:
        return "Gains of single images are known once the adapter is scored on the test images."
    order = np.argsort(gain.differences, kind="stable")
    heights = gain.differences[order]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(order) + 1)),
            y=heights.tolist(),
            marker={"color": [GREEN if height >= 0 else RED for height in heights], "line": {"width": 0}},
            customdata=[gain.ids[row] for row in order],
            hovertemplate="%{customdata}: %{y:+.3f}<extra></extra>",
        )
    )
    figure.add_hline(gain.over_zero_shot.mean, line={"color": BLUE, "dash": "dash", "width": 1.5})
    return _dressed(figure, x="test images, worst gain first", y=f"gain of Dice, {gain.prompted}", bargap=0.1)


def learning_curves(record: Record, study: optuna.Study) -> Plot:
    """Validation Dice of every trial of the study over its epochs, the best one's above the others."""
    if not study.get_trials(deepcopy=False):
        return "No trial reported a score, so there is no curve."
    figure = visualization.plot_intermediate_values(study)
    best = max(study.get_trials(deepcopy=False), key=lambda trial: trial.value or 0.0).number
    names = [str(trial.user_attrs["trial"]) for trial in study.get_trials(deepcopy=False)]
    for number, trace in enumerate(figure.data):
        is_best = number == best
        trace.update(
            name=names[number],
            showlegend=False,
            opacity=1.0 if is_best else 0.6,
            mode="lines+markers" if is_best or len(trace.x) == 1 or len(names) <= CURVES_WITH_NAMES else "lines",
            marker={"size": 4},
            line={"color": BLUE if is_best else GREY, "width": 3 if is_best else 1},
            hovertemplate=f"{names[number]} epoch %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    figure.data = (*(t for n, t in enumerate(figure.data) if n != best), figure.data[best])  # drawn last, on top
    if record.zero_shot is not None:
        figure.add_hline(record.zero_shot, line={"color": ORANGE, "dash": "dash", "width": 1.5})
    figure.update_layout(title=None)
    return _dressed(figure, x="epoch", y=DICE, xaxis_range=None)


def parallel_coordinates(study: optuna.Study) -> Plot:
    """Settings that all trials have, beside the score."""
    settings = common_settings(study)
    if len(study.get_trials(deepcopy=False)) < 2:
        return f"Comparing settings needs 2 trials with a score; there {_are(study)}."
    if not settings:
        return "No setting is part of every trial with more than one value, so there is nothing to compare."
    figure = _quietly(visualization.plot_parallel_coordinate, study, params=settings, target_name=DICE)
    figure.update_layout(
        title=None, template="plotly_white", font={"size": 13}, height=440, margin={"l": 60, "r": 20, "t": 30, "b": 40}
    )
    return figure


def importance(study: optuna.Study) -> Plot:
    """How much of what separates good trials from the rest goes with each setting: PED-ANOVA (Watanabe et al. 2023)."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) < FEWEST_FOR_IMPORTANCE:
        return f"Importance of settings needs {FEWEST_FOR_IMPORTANCE} trials with a score; there {_are(study)}."
    if len({trial.value for trial in trials}) == 1:
        return "All trials have the same score, so no setting can be told to matter."
    settings = common_settings(study)
    if not settings:
        return "No setting is part of every trial with more than one value, so none can be weighed."
    evaluator = _quietly(optuna.importance.PedAnovaImportanceEvaluator)
    figure = _quietly(
        visualization.plot_param_importances, study, evaluator=evaluator, params=settings, target_name=DICE
    )
    figure.update_layout(title=None, showlegend=False)
    figure.update_traces(marker={"color": BLUE}, hovertemplate="%{y}: %{x:.2f}<extra></extra>")
    return _dressed(figure, x="share of importance", y="", height=120 + 50 * len(settings), yaxis_automargin=True)


def pareto(record: Record) -> Plot:
    """Score against what the sweep weighs it with, or else against the size of the adapter."""
    second, weighed = second_objective(record)
    study = study_of(record, second)
    trials = study.get_trials(deepcopy=False)
    if len(trials) < 2:
        return f"A front needs 2 trials with a score and a size; there {_are(study)}."
    if len({trial.values[1] for trial in trials}) == 1:
        return f"All trials have the same value for {weighed}, so there is nothing to weigh against the score."
    figure = _quietly(visualization.plot_pareto_front, study, target_names=[DICE, weighed])
    figure.update_layout(title=None, legend={"orientation": "h", "y": 1.12, "x": 0})
    for trace, name, colour in zip(figure.data, ("off the front", "on the front"), (GREY, RED), strict=True):
        trace.update(name=name, showlegend=True, marker={"size": 9, "color": colour, "showscale": False})
    return _dressed(figure, x=DICE, y=weighed)


def second_objective(record: Record) -> tuple[Second, str]:
    """What is weighed against the score, and its name."""
    if record.config.search.against == "epoch_seconds":
        return epoch_seconds, SECONDS_OBJECTIVE
    return record.size, SIZE_OBJECTIVE


def information_plane(record: Record) -> Plot:
    """How the relations of teacher and student move over the epochs of the best trial that was trained with them."""
    trial = next((one for one in _by_interest(record) if _reports_information(one)), None)
    if trial is None:
        return "No trial with a score was trained with the information terms, so there are no relations to follow."
    epochs, shared = values_over_epochs(trial, INFORMATION[2])
    figure = go.Figure()
    for name, metric, colour in (("teacher", INFORMATION[0], ORANGE), ("student", INFORMATION[1], BLUE)):
        figure.add_trace(
            go.Scatter(
                x=values_over_epochs(trial, metric)[1],
                y=shared,
                mode="lines+markers+text",
                name=f"{name} of {trial.trial_id}",
                text=[str(epoch) if epoch in (epochs[0], epochs[-1]) else "" for epoch in epochs],
                textposition="top center",
                line={"color": colour},
                marker={"size": 7},
                customdata=epochs,
                hovertemplate=f"{name}, epoch %{{customdata}}: %{{x:.3f}} bits, shared %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_layout(legend={"orientation": "h", "y": 1.12, "x": 0})
    return _dressed(figure, x="entropy of the relation in bits", y="shared with the other, in bits")


def gains_of_domains(gains: Sequence[tuple[str, PromptGain]]) -> Plot:
    """Gain over zero-shot of several sweeps, with intervals."""
    if not gains:
        return "None of these sweeps has a result to compare."
    figure = go.Figure()
    known = [0.0 if np.isnan(gain.over_zero_shot.low) else 1.0 for _, gain in gains]
    figure.add_trace(
        go.Scatter(
            x=[gain.over_zero_shot.mean for _, gain in gains],
            y=[name for name, _ in gains],
            mode="markers",
            marker={"size": 11, "color": [BLUE if one else GREY for one in known]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_bar(gain.over_zero_shot.high - gain.over_zero_shot.mean) for _, gain in gains],
                "arrayminus": [_bar(gain.over_zero_shot.mean - gain.over_zero_shot.low) for _, gain in gains],
                "color": BLUE,
            },
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    )
    figure.add_vline(0.0, line={"color": GREY, "width": 1})
    return _dressed(figure, x="gain of Dice over zero-shot", y="", height=140 + 60 * len(gains), yaxis_automargin=True)


def _dressed(figure: go.Figure, *, x: str, y: str, height: int = 400, **layout: object) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        autosize=True,
        width=None,
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        font={"size": 13},
        **layout,
    )
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure


def _bar(length: float) -> float:
    return 0.0 if np.isnan(length) else float(length)


def _by_interest(record: Record) -> list[TrialRecord]:
    return [*([record.champion] if record.champion else []), *record.contenders]


def _reports_information(trial: TrialRecord) -> bool:
    return bool(trial.epochs) and all(all(name in epoch.values for name in INFORMATION) for epoch in trial.epochs)


def _are(study: optuna.Study) -> str:
    count = len(study.get_trials(deepcopy=False))
    return f"{'is' if count == 1 else 'are'} {count or 'none'}"


def _quietly(call: object, *arguments: object, **options: object) -> go.Figure:
    """Optuna marks some of its plots as experimental, which is no news for who reads the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return call(*arguments, **options)  # type: ignore[operator]
