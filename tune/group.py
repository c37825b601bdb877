"""Sweeps that share their slots, one for each domain of a file: their names, their folders, and finding them again.

Each is a whole sweep with a folder, a log and a study of its own. The group only says which ones go on together, and
its folder keeps what Tune and the slots write for all of them. A sweep alone is a group of one, in its own folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig
from tune.home import Home
from tune.plan import TRAINING, SweepPlan, discard, draft_plan, make_folder, settled, write_whole
from tune.resume import find_sweep

GROUP_FILE = "group.yaml"
"""In a group's folder: the names of its sweeps, whose folders lie beside it."""
LONGEST_NAME = 63
SHARED = ("run", "resources")
"""Sections that must be equal in sweeps on the same slots."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Sweeps that run together."""

    folder: Path  # of the group, or of its only sweep
    plans: Sequence[SweepPlan]

    @property
    def folders(self) -> list[Path]:
        """All folders, none twice."""
        return list(dict.fromkeys([*(plan.folder for plan in self.plans), self.folder]))

    def check(self) -> None:
        """Raises UserError unless the sweeps can share slots, which those of one file always can."""
        first = self.plans[0].config
        for plan in self.plans[1:]:
            for section in SHARED:
                if getattr(plan.config, section) != getattr(first, section):
                    raise UserError(
                        f"{plan.folder}: {section} is not that of {first.name}, so the two cannot share slots; put it "
                        "back, or resume each sweep by its own name"
                    )


def draft_group(configs: Sequence[SweepConfig], home: Home, training: str = TRAINING) -> list[SweepPlan]:
    """The sweeps of a file with nothing on disk yet. Raises UserError for the first that cannot be run, and for two of
    the same domain."""
    drafts = [draft_plan(config, home, training) for config in configs]
    twice = [domain for domain, count in Counter(draft.domain for draft in drafts).items() if count > 1]
    if twice:
        folders = ", ".join(str(draft.config.data) for draft in drafts if draft.domain == twice[0])
        raise ConfigError(
            f"domains: {folders} all hold {twice[0]!r}, which can have one champion only; leave one of them, or import "
            "its images under another name"
        )
    return [_named(draft, configs[0].name) for draft in drafts] if len(drafts) > 1 else drafts


def make_group(configs: Sequence[SweepConfig], home: Home, training: str = TRAINING) -> Group:
    """Looks at every dataset's card, then makes the folders. Raises UserError, and leaves nothing then."""
    drafts = draft_group(configs, home, training)
    if len(drafts) == 1:
        plan = settled(drafts[0])
        return Group(folder=plan.folder, plans=[plan])
    parent = drafts[0].folder.parent
    name, folder = make_folder(configs[0].name or _joint_name([draft.domain for draft in drafts]), parent)
    made: list[SweepPlan] = []
    try:
        for draft in drafts:
            made.append(settled(replace(draft, group=name)))
        content = {"members": [plan.sweep_id for plan in made]}
        write_whole(folder / GROUP_FILE, yaml.safe_dump(content, sort_keys=False))
    except BaseException:
        for path in (folder, *(plan.folder for plan in made)):
            discard(path)
        raise
    return Group(folder=folder, plans=made)


def find_group(name: str, home: Home) -> tuple[Path, list[Path]]:
    """The folder of a group, or of a sweep alone, and those of its sweeps; by name, or by path where `storage` put it.

    Raises UserError."""
    for folder in (home.sweeps / name, Path(name)):
        if (folder / GROUP_FILE).is_file():
            return folder.absolute(), _members(folder.absolute(), home)
    folder = find_sweep(name, home)
    return folder, [folder]


def member_folders(path: Path) -> list[Path]:
    """The folders that a group's file names, whether they are there or not. Raises UserError."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = content.get("members") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: must hold `members`, a list of names of sweeps")
    return [path.parent.parent / name for name in names]


def _members(folder: Path, home: Home) -> list[Path]:
    path = folder / GROUP_FILE
    try:
        return [find_sweep(str(member), home) for member in member_folders(path)]
    except UserError as error:
        raise UserError(f"{path}: resume the sweeps of this group by their own names: {error}") from None


def _named(draft: SweepPlan, shared: str | None) -> SweepPlan:
    """A sweep of a group, under the shared name with its domain."""
    if shared is None:
        return draft
    name = f"{shared}-{draft.domain}"
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"name: {name} has more than {LONGEST_NAME} characters; give the sweeps a shorter name")
    config = draft.config.model_copy(update={"name": name})
    return replace(draft, config=config, sweep_id=name, folder=draft.folder.with_name(name))


def _joint_name(domains: Sequence[str]) -> str:
    """Of a group without a name of its own."""
    name = "-".join(domains)
    return name if len(name) <= LONGEST_NAME else f"{domains[0][:40]}-and-{len(domains) - 1}-more"
