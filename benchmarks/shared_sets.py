"""The data sets that benchmarks train on: five specialised domains, or a made-up one where a quick run is enough."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from infosam.data.store import import_dataset
from infosam.synthetic import write_demo_domain

DOMAINS = ("polyp", "leaf_disease", "retinal_vessel", "road", "skin_lesion")
VARIABLE = "INFOSAM_TEST_DATA"
MADE_UP = "spores"


def default_folder() -> Path:
    """Where the domains lie: the folder that `VARIABLE` names, or shared/data beside the checkout."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(__file__).parents[2] / "shared" / "data"


def imported(source: Path, domains: Sequence[str], work: Path) -> dict[str, Path]:
    """Data sets by domain, imported on first use. Exits where one is missing."""
    found = {}
    for domain in domains:
        if not (source / domain).is_dir():
            raise SystemExit(f"{source / domain} is missing; give --data or {VARIABLE}, or try --quick, without data")
        found[domain] = work / "data" / domain
        import_dataset(source / domain, domain=domain, out=found[domain])
    return found


def made_up(work: Path, *, image_px: int, val: int = 2, test: int = 2) -> dict[str, Path]:
    """The demo's domain with a few images."""
    source = write_demo_domain(work / MADE_UP, train=8, val=val, test=test, image_px=image_px)
    import_dataset(source, domain=MADE_UP, out=work / "data" / MADE_UP)
    return {MADE_UP: work / "data" / MADE_UP}
