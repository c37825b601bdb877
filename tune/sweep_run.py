"""One sweep under way: its log, its records, and what becomes of it. `tune.runner` drives one or several together."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from infosam.errors import UserError
from tune.bucket import Bucket
from tune.encoding_stores import Stores, build_stores
from tune.event_log import EventLog
from tune.events import Event, Listener, State
from tune.finale import crown, recall, summarise
from tune.finals import SEED, Finals
from tune.ledger import Ledger
from tune.log_mirror import LogMirror
from tune.plan import SweepPlan
from tune.report.ending import with_report
from tune.results import SweepOutcome, resume_command
from tune.resume import check_weights, drop_stale_bundles, is_over, trials_left
from tune.sweep_facts import sweep_started
from tune.sync import StoredFiles
from tune.terminal import Standing
from tune.tracking import Tracker
from tune.trial_files import SweepFiles
from tune.worker import training_entry

if TYPE_CHECKING:
    from tune.study import Part


class SweepRun:
    """Drives what belongs to one sweep alone; called in this order: `load`, `check`, `begin`, the search, `conclude`,
    `end`. `recall` stands for all of them where nothing is left to do.

    Args:
        ledger: what earlier drivers did.
        log: of the sweep, open for writing.
        group: folder of the sweeps that share slots with it, if any.
    """

    def __init__(
        self, plan: SweepPlan, ledger: Ledger, log: EventLog, console: Console, *, group: Path | None = None
    ) -> None:
        self.plan = plan
        self.outcome = SweepOutcome(
            sweep_id=plan.sweep_id,
            domain=plan.domain,
            folder=plan.folder,
            seed=plan.config.run.train.seed,
            ledger=ledger,
            tracking_uri=plan.tracking_uri,
            group=group,
        )
        self.materials: Future[Any] = Future()
        self.finals = Finals(plan.config.final, plan.config.run, ledger)
        self.is_new = ledger.sweep is None
        self.is_over = is_over(ledger, plan.config)
        self._console = console
        self._stores: Stores | None = None
        self._log = log
        self._listeners: list[Listener] = [log]
        self._files = SweepFiles(plan, ledger.trials, lambda: self.materials.result())
        self._tracker: Tracker | None = None
        self._state: State | None = None

    @property
    def has_begun(self) -> bool:
        """Whether this driver has recorded anything."""
        return self._tracker is not None

    @property
    def has_trials_left(self) -> bool:
        """Whether it needs slots."""
        config, ledger = self.plan.config, self.outcome.ledger
        if ledger.end is not None and ledger.end.state == "FINISHED":
            return False
        if trials_left(ledger, config):
            return True
        return config.final.active and bool(self.finals.repeats() or self.finals.twins())

    @property
    def trials_left(self) -> int:
        """The most trials that it will still run."""
        return trials_left(self.outcome.ledger, self.plan.config) + self.plan.config.final.trials

    @property
    def standing(self) -> Standing:
        """Where it stands when it begins."""
        best, zero_shot = self.outcome.ledger.champion(), self.materials.result().zero_shot
        return Standing(
            zero_shot=zero_shot.get(f"val/{self.plan.config.run.train.select}/dice"),
            best=(best.score, best.trial_id) if best else None,
        )

    def recall(self) -> None:
        """The result of a sweep that is over."""
        self._console.print(f"{self.plan.sweep_id} is over: nothing to do", style="dim", highlight=False)
        self._choose_champion()
        recall(self.outcome, self.plan)
        files = StoredFiles(self.plan.folder, self.outcome.ledger, self.plan.home)
        tracker = Tracker(self.plan.tracking_uri, self._log.path, files=files, warn=self.warn)
        self.outcome.tracking = tracker.close()
        if self.outcome.champion is None:
            self._note_failure()

    def load(self, pool: ThreadPoolExecutor, other: SweepRun | None) -> None:
        """Loads data and weights, and scores the base model on the validation images, all in a thread.

        `other` was given to the same pool of one thread before; what both need is loaded once."""
        self.materials = pool.submit(self._load_materials, other)

    def check(self) -> None:
        """Waits for what `load` began. Raises UserError for bad data, and for weights the sweep did not begin with."""
        check_weights(self.outcome.ledger, self.materials.result().base_sha256)

    def begin(self) -> None:
        """From here on there is something to record."""
        plan, materials = self.plan, self.materials.result()
        drop_stale_bundles(plan.folder, self.outcome.ledger)
        if plan.mirror is not None:
            self._listeners.insert(0, self._open_mirror(plan.mirror))
        started = sweep_started(
            plan,
            zero_shot=materials.zero_shot,
            base_sha256=materials.base_sha256,
            resumed=not self.is_new,
        )
        self._tell(started)
        self._tracker = Tracker(plan.tracking_uri, self._log.path, files=self._files, warn=self.warn)

    def make_stores(self) -> Stores:
        """What its trials will share, before they start; in use until it is released."""
        self._stores = build_stores(self.plan, self.materials.result(), self._console, warn=self.warn)
        return self._stores

    def part(self, *listeners: Listener) -> Part:
        """Its part in a search; `listeners` hear of it after the log."""
        from tune.study import Part  # Ray and Optuna, which a sweep that only lacks its finale need not wait for

        shared = self._stores.shared if self._stores else ()
        return Part(plan=self.plan, ledger=self.outcome.ledger, listeners=[*self._listeners, *listeners], shared=shared)

    def conclude(self) -> None:
        """Champion, test score and promotion."""
        outcome = self.outcome
        self._choose_champion()
        if outcome.champion is not None:
            assert self._tracker is not None
            outcome.bundle = self._files.bundle(outcome.champion.trial_id)
            crown(outcome, self.plan, self.materials.result(), self._tracker, self._console, self._tell)
        if outcome.interrupted:
            self._state = "KILLED"
        else:
            self._state = "FAILED" if outcome.champion is None else "FINISHED"
        if self._state == "FAILED":
            self._note_failure()

    def interrupt(self) -> None:
        """The user wants the end before `conclude` came to its own."""
        if self._state is None:
            self.outcome.interrupted, self._state = True, "KILLED"

    def end(self) -> None:
        """Records the end, whatever came before; nothing if nothing was begun."""
        if self._tracker is None:
            return
        state = self._state or "FAILED"
        ended = with_report(self.plan.folder, summarise(self.outcome, state), self.warn)
        try:
            self._tell(ended)
        except OSError as error:  # a full disk; what brought us here is the error to show
            self.warn(f"{self._log.path}: the end of the sweep could not be written: {error}")
        if state == "FAILED" and not is_over(self.outcome.ledger, self.plan.config):
            self.warn(f"Go on with: {resume_command(self.outcome)}")
        self.outcome.tracking = self._tracker.close()

    def warn(self, text: str) -> None:
        """Says what the user should know."""
        self._console.print(f"[yellow]{text}[/]", soft_wrap=True, highlight=False)

    def _load_materials(self, other: SweepRun | None) -> Any:
        plan = self.plan
        entry = training_entry(plan.training)
        like = None if other is None else other.materials.result()
        return entry.load_materials(
            plan.config.run.model, plan.config.data, device=plan.device, baselines=True, like=like
        )

    def _tell(self, event: Event) -> None:
        """To the ledger last: it is the only one that cannot fail, and must not know more than the log."""
        for listener in self._listeners:
            listener(event)
        self.outcome.ledger(event)

    def _open_mirror(self, address: str) -> LogMirror:
        try:
            mirror = LogMirror(Bucket(address), self._log.path, warn=self.warn)
        except OSError as error:
            raise UserError(
                f"{address}: cannot be read: {error}; check resources.mirror and the credentials"
            ) from error
        note = f"Kept in {address}, too; if this machine is lost: infosam sweep --resume {address}"
        self._console.print(note, style="dim", highlight=False, soft_wrap=True)
        return mirror

    def _choose_champion(self) -> None:
        outcome = self.outcome
        if self.plan.config.final.active:
            outcome.finals = self.finals.result()
        outcome.champion = outcome.finals.challenger if outcome.finals else outcome.ledger.champion()
        if outcome.champion is not None:
            outcome.seed = outcome.champion.values.get(SEED, outcome.seed)

    def _note_failure(self) -> None:
        outcome, name = self.outcome, self.plan.sweep_id
        if outcome.first_error is None:
            why = f" ({outcome.ledger.budget})" if outcome.ledger.budget else ""
            outcome.failure = f"no trial of {name} came to a result{why}; what happened: {self._log.path}"
        else:
            outcome.failure = (
                f"every trial of {name} failed; the first said: {outcome.first_error} (all: {self._log.path})"
            )
