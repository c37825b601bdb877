"""Which runs `does_infosam_help.py` needs, and in what order: rates, seeds of the chosen one, more where undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from arm_gains import ArmScores
from arm_runs import ArmRuns, Domain, Trained
from compared_arms import QUESTION, Job, Pair

DECIDED_BY = "box"
"""Prompt whose gain decides about more seeds."""
SECONDS_PER_IMAGE = 0.06
"""Of training and validation, on one slow core; the first estimate, before there are runs to measure."""

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Study:
    """All runs that are wanted."""

    domains: Sequence[Domain]
    arms: Sequence[str]
    rates: Sequence[float]
    epochs: int
    seeds: int
    most_seeds: int
    settings: dict[str, Any]
    runs: ArmRuns

    def carry_out(self, stop: Stop) -> bool:
        """Trains and scores what lacks, then more seeds for pairs that are undecided. False if it was stopped before
        every arm had its seeds."""
        for domain in self.domains:
            for arm in self.arms:
                if not all(self._train(job, domain, stop) for job in self._tries(domain, arm)):
                    return False
                self._drop_refused(domain, arm)
                if not all(self._finish(job, domain, stop) for job in self._repeats(domain, arm, self.seeds)):
                    return False
            self.runs.untuned(domain)
        self._decide(stop)
        return True

    def left(self) -> list[Job]:
        """Runs that are still to be trained before pairs are looked at."""
        found = []
        for domain in self.domains:
            for arm in self.arms:
                tries = self._tries(domain, arm)
                found += tries
                if any(self.runs.trained(job) is None for job in tries):  # then which rate is not known: any stands in
                    found += [Job(domain.name, arm, self.rates[0], seed) for seed in range(self.seeds)]
                else:
                    found += self._repeats(domain, arm, self.seeds)
        return [job for job in dict.fromkeys(found) if self.runs.trained(job) is None]

    def estimate(self) -> str:
        """What is left and how long that takes, by the runs that are there."""
        done = [run for run in self.trained() if run.history]
        images = {domain.name: domain.images for domain in self.domains}
        shown = sum(images[run.job.domain] * len(run.history) for run in done)
        per_image = sum(run.seconds for run in done) / shown if done else SECONDS_PER_IMAGE
        left = self.left()
        seconds = sum(images[job.domain] for job in left) * self.epochs * per_image
        return f"{len(left)} runs left, about {seconds / 3600:.2f} hours ({per_image:.3f} s per image and epoch)"

    def trained(self) -> list[Trained]:
        """All finished runs."""
        return [run for job in self._jobs() if (run := self.runs.trained(job)) is not None]

    def scores(self) -> ArmScores:
        """All test scores."""
        return ArmScores(run for job in self._jobs() if (run := self.runs.tested(job)) is not None)

    def pairs(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Those of which both arms take part."""
        return [pair for pair in pairs if {*pair} <= {*self.arms}]

    def _tries(self, domain: Domain, arm: str) -> list[Job]:
        """The learning rates of an arm."""
        return [Job(domain.name, arm, rate, 0) for rate in self.rates]

    def _repeats(self, domain: Domain, arm: str, count: int) -> list[Job]:
        """The seeds of an arm under the rate that validation chose; none before that, or if all rates diverged."""
        rate = self._chosen(domain, arm)
        return [] if rate is None else [Job(domain.name, arm, rate, seed) for seed in range(count)]

    def _chosen(self, domain: Domain, arm: str) -> float | None:
        """The rate with the best validation score; of equal ones the lower."""
        found = [run for job in self._tries(domain, arm) if (run := self.runs.trained(job)) is not None]
        if len(found) < len(self.rates) or not any(run.best_epoch for run in found):
            return None
        return max(found, key=lambda run: (run.score, -run.job.rate)).job.rate

    def _drop_refused(self, domain: Domain, arm: str) -> None:
        for job in self._tries(domain, arm):
            if job.rate != self._chosen(domain, arm):
                self.runs.drop(job)

    def _train(self, job: Job, domain: Domain, stop: Stop) -> bool:
        """False where the run is not there and there is no time for it."""
        if self.runs.trained(job) is not None:
            return True
        if stop():
            return False
        run = self.runs.train(job, domain)
        print(f"{job.name}: val Dice {run.score:.4f} in epoch {run.best_epoch}; {self.estimate()}", flush=True)
        return True

    def _finish(self, job: Job, domain: Domain, stop: Stop) -> bool:
        """As `_train`, and the test score, unless the run diverged."""
        if not self._train(job, domain, stop):
            return False
        if self.runs.train(job, domain).best_epoch:
            self.runs.test(job, domain)
        return True

    def _decide(self, stop: Stop) -> None:
        """More seeds for both sides of each pair in question, until it is decided or time is up."""
        for seed in range(self.seeds, self.most_seeds):
            for domain in self.domains:
                for pair in self.pairs(QUESTION):
                    gain = self.scores().gain(pair, DECIDED_BY, domain.name)
                    if gain is None or gain.decided:
                        continue
                    for arm in pair:
                        if not self._finish(self._repeats(domain, arm, seed + 1)[seed], domain, stop):
                            return

    def _jobs(self) -> Iterator[Job]:
        for domain in self.domains:
            for arm in self.arms:
                yield from dict.fromkeys([*self._tries(domain, arm), *self._repeats(domain, arm, self.most_seeds)])
