"""One pass over a source: every pair is opened once, several at a time, and everything found is put in one report."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from infosam.data.check.files import Facts, look
from infosam.data.check.findings import KINDS, SEVERITIES, Finding, Severity
from infosam.data.check.whole import WHOLE_CHECKS, Whole
from infosam.data.manifest import list_pairs, repeated_in
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.pixels import is_small
from infosam.data.readers.contract import Listing
from infosam.data.readers.table import understood
from infosam.data.threads import in_order
from infosam.errors import DataError

MASK_PX = 256  # SAM's mask decoder, whatever the size of the image
OF_MASKS = ("blank", "absent", "full", "inverted", "thin")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is wrong with a source."""

    source: Path
    listing: Listing
    facts: tuple[Facts, ...]  # of each pair of the listing
    findings: tuple[Finding, ...]  # errors first, then by kind, in the order of the source
    options: ReadOptions

    def count(self, severity: Severity) -> int:
        """Findings of one weight."""
        return sum(finding.kind.severity == severity for finding in self.findings)


def check_source(
    source: Path,
    options: ReadOptions | None = None,
    *,
    group: str | None = None,
    anew: bool = False,
    allow_empty: bool = False,
    mask_px: int = MASK_PX,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Looks at every pair of `source`, any layout of `readers.table`. Writes nothing.

    `anew` forgets the splits of the source, as an import may; `mask_px` is the longest side of the masks that the model
    computes. Raises DataError only if nothing can be listed at all."""
    options = options or ReadOptions()
    listing, problems = list_pairs(source, options, group)
    problems += repeated_in(listing.listed)
    if anew:
        listing = replace(listing, listed=[replace(pair, split=None) for pair in listing.listed])
    if not listing.listed and not problems:
        raise DataError(f"{source}: no image-mask pairs in it; {understood()}")
    facts = _look_at_all(listing.listed, options, mask_px, allow_empty, progress)
    findings = [_of_listing(problem, listing.root) for problem in problems]
    for position, (pair, seen) in enumerate(zip(listing.listed, facts, strict=True)):
        findings += [_finding(kind, what, pair, position) for kind, what in seen.found]
    whole = Whole(source, listing.listed, facts)
    for kind, test in WHOLE_CHECKS.items():
        for place, what, *other in test(whole):
            one = _finding(kind, what, None if place is None else listing.listed[place], place)
            findings.append(replace(one, other=other[0] if other else None))
    order = {name: number for number, name in enumerate(KINDS)}
    findings.sort(key=lambda one: (SEVERITIES.index(one.kind.severity), order[one.kind.name]))
    return Report(source=source, listing=listing, facts=tuple(facts), findings=tuple(findings), options=options)


def by_kind(findings: tuple[Finding, ...]) -> dict[str, list[Finding]]:
    """Findings under the names of their kinds, in order."""
    counts = Counter(finding.kind.name for finding in findings)
    return {name: [finding for finding in findings if finding.kind.name == name] for name in counts}


def _look_at_all(
    listed: list[Listed],
    options: ReadOptions,
    mask_px: int,
    allow_empty: bool,
    progress: Callable[[int, int], None] | None,
) -> list[Facts]:
    facts: list[Facts] = []
    one = partial(look, choice=options.choice, mask_px=mask_px, allow_empty=allow_empty)
    for done, seen in enumerate(in_order(one, listed, small=is_small), start=1):
        facts.append(seen)
        if progress:
            progress(done, len(listed))
    return facts


def _of_listing(problem: str, root: Path) -> Finding:
    """A problem of a reader: it begins with the file, or with the row of a list in `root`, that is wrong."""
    words = problem.split(": ")
    for amount in range(len(words) - 1, 0, -1):  # the longest first, for a name may have such a mark in it
        file = ": ".join(words[:amount])
        if os.path.lexists(file):
            return Finding(KINDS["listing"], Path(os.path.relpath(file, root)).as_posix(), file, problem)
    name = re.sub(r":\d+$", "", words[0])
    file = str(root / name) if os.path.lexists(root / name) else name
    named = (": ".join(words[1:amount]) for amount in range(len(words) - 1, 1, -1))  # if it could not be cut into tiles
    file = next((one for one in named if os.sep in one and os.path.lexists(one)), file)
    return Finding(KINDS["listing"], words[0], file, problem)


def _finding(kind: str, what: str, pair: Listed | None, position: int | None) -> Finding:
    if pair is None:
        return Finding(KINDS[kind], "", "", what)
    of_mask = kind.startswith("mask") or kind in OF_MASKS or what.startswith(f"{pair.mask}: ")
    file = pair.mask if of_mask else pair.image
    return Finding(KINDS[kind], pair.row, str(file), what, position)
