"""What one arm gains over another on the same test images under the same seeds, for each domain and over the images of
all domains together.

Intervals say how far a gain would move with other images of the same kind and other training seeds: both are drawn
again, within each domain. The spread of the mean difference over seeds stands beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from arm_runs import Scored, Trained
from compared_arms import Job, Pair
from numpy.typing import NDArray

from infosam.bootstrap import CONFIDENCE, RESAMPLES, Interval

RANKED_BY = "dice"
METRICS = ("dice", "iou")


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Of one pair under one prompt in one domain, or over all."""

    interval: Interval
    by_seed: Sequence[float]  # mean difference under each common seed

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval.excludes_zero

    def figures(self) -> dict[str, Any]:
        """As it is published."""
        spread = statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else None
        return {
            "mean": round(self.interval.mean, 5),
            "low": round(self.interval.low, 5),
            "high": round(self.interval.high, 5),
            "images": self.interval.images,
            "seeds": len(self.by_seed),
            "sd_over_seeds": None if spread is None else round(spread, 5),
        }


class ArmScores:
    """All test scores by domain and arm."""

    def __init__(self, tested: Iterable[Scored]) -> None:
        self._runs: dict[tuple[str, str], dict[int, Scored]] = {}
        for run in tested:
            self._runs.setdefault((run.job.domain, run.job.arm), {})[run.job.seed] = run

    @classmethod
    def read(cls, file: Path) -> ArmScores:
        """What `write` wrote."""
        runs: dict[Job, dict[str, Any]] = {}
        for row in pq.read_table(file).to_pylist():
            job = Job(row["domain"], row["arm"], row["lr"], row["seed"])
            run = runs.setdefault(job, {**{name: row[name] for name in ("epoch", "commit", "machine")}, "scores": {}})
            run["scores"].setdefault(row["prompt"], []).append({name: row[name] for name in METRICS})
        return cls(Scored(job=job, **run) for job, run in runs.items())

    @property
    def domains(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(domain for domain, _ in self._runs))

    @property
    def commits(self) -> list[str]:
        """That the runs were made with."""
        return sorted({run.commit for runs in self._runs.values() for run in runs.values()})

    def runs(self, domain: str, arm: str) -> list[Scored]:
        """By seed."""
        return [run for _, run in sorted(self._runs.get((domain, arm), {}).items())]

    def gain(self, pair: Pair, prompt: str, domain: str, metric: str = RANKED_BY) -> Gain | None:
        """Of one domain; None without a common seed."""
        differences = self._differences(pair, prompt, domain, metric)
        if differences is None:
            return None
        return Gain(interval=gain_interval([differences]), by_seed=differences.mean(axis=1).tolist())

    def pooled(self, pair: Pair, prompt: str, metric: str = RANKED_BY) -> Gain | None:
        """Of all images of the domains that have both arms; each image counts the same."""
        found = [self._differences(pair, prompt, domain, metric) for domain in self.domains]
        known = [one for one in found if one is not None]
        if not known:
            return None
        common = min(len(one) for one in known)
        by_seed = np.concatenate([one[:common] for one in known], axis=1).mean(axis=1).tolist()
        return Gain(interval=gain_interval(known), by_seed=by_seed)

    def _differences(self, pair: Pair, prompt: str, domain: str, metric: str) -> NDArray[np.float64] | None:
        """Ours - theirs (seeds, images)."""
        ours, theirs = ({run.job.seed: run for run in self.runs(domain, arm)} for arm in pair)
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            return None
        return np.array(
            [_values(ours[seed], prompt, metric) - _values(theirs[seed], prompt, metric) for seed in common]
        )

    def means(self, domain: str, arm: str) -> dict[str, Any]:
        """Mean scores of an arm as `test/box/dice`, with their spread over seeds, its learning rate and seeds."""
        runs = self.runs(domain, arm)
        figures: dict[str, Any] = {"lr": runs[0].job.rate, "seeds": len(runs)}
        for prompt in runs[0].scores:
            for metric in METRICS:
                over_seeds = [float(_values(run, prompt, metric).mean()) for run in runs]
                figures[f"test/{prompt}/{metric}"] = round(statistics.fmean(over_seeds), 4)
                figures[f"test/{prompt}/{metric}_sd"] = (
                    round(statistics.stdev(over_seeds), 4) if len(runs) > 1 else None
                )
        return figures

    def write(self, out: Path, settings: Mapping[str, str]) -> Path:
        """A Parquet row for each run, prompt and image, which is named by its position in the test split."""
        rows = [
            {**_fixed(run), "epoch": run.epoch, "prompt": prompt, "image": number, **image}
            for kept in self._runs.values()
            for _, run in sorted(kept.items())
            for prompt, images in run.scores.items()
            for number, image in enumerate(images)
        ]
        return _write(rows, out, settings)


def gain_interval(domains: Sequence[NDArray[np.float64]], *, resamples: int = RESAMPLES) -> Interval:
    """Bootstrap interval of the mean over all images, each averaged over its seeds.

    Args:
        domains: differences (seeds, images) of each domain, whose images and seeds are drawn with replacement,
            independently of each other and of other domains.

    Of n seeds n - 1 are drawn: of the few that there are, n draws would show (n - 1) / n of their variance only. One
    seed says nothing about others: then the interval is about images. NaN for a single image."""
    images = sum(one.shape[1] for one in domains)
    mean = float(sum(one.mean(axis=0).sum() for one in domains) / images)
    if images < 2:
        return Interval(mean, float("nan"), float("nan"), images)
    rng = np.random.default_rng(0)
    total = np.zeros(resamples)
    for differences in domains:
        seeds, count = differences.shape
        weights = _drawn(rng, resamples, seeds, max(1, seeds - 1)) if seeds > 1 else np.ones((resamples, 1))
        total += ((weights @ differences) * _drawn(rng, resamples, count, count)).sum(axis=1) * count
    low, high = np.quantile(total / images, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high), images)


def _drawn(rng: np.random.Generator, times: int, of: int, draws: int) -> NDArray[np.float64]:
    """Weights (times, of) of what was drawn with replacement, which sum to 1."""
    return rng.multinomial(draws, np.full(of, 1 / of), size=times) / draws


def write_epochs(runs: Iterable[Trained], out: Path, settings: Mapping[str, str]) -> Path:
    """A Parquet row for each run, of those that were not chosen too, and epoch, with all metrics of training."""
    rows = [
        {**_fixed(run), "epoch": epoch, "best_epoch": run.best_epoch, **metrics}
        for run in runs
        for epoch, metrics in enumerate(run.history, 1)
    ]
    return _write(rows, out, settings)


def _fixed(run: Trained | Scored) -> dict[str, Any]:
    job = run.job
    return {
        "domain": job.domain, "arm": job.arm, "lr": job.rate, "seed": job.seed,
        "commit": run.commit, "machine": run.machine,
    }  # fmt: skip


def _values(run: Scored, prompt: str, metric: str) -> NDArray[np.float64]:
    return np.array([image[metric] for image in run.scores[prompt]], dtype=np.float64)


def _write(rows: Sequence[Mapping[str, Any]], out: Path, settings: Mapping[str, str]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".part")
    pq.write_table(pa.table(columns).replace_schema_metadata(dict(settings)), temporary, compression="zstd")
    temporary.replace(out)
    return out
