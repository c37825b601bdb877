"""What can be read but is perhaps not meant, told as notes of a source: nothing here stops an import."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from infosam.data.pairs import Listed
from infosam.data.readers.contract import Listing


def doubts_of(listing: Listing, group: str | None = None) -> tuple[str, ...]:
    """About the pairs as they are listed; `group` is what the user asked groups from."""
    return (*_half_grouped(listing.listed, group), *_one_mask_for_many(listing))


def _half_grouped(listed: Sequence[Listed], group: str | None) -> Iterator[str]:
    without = sum(pair.group is None for pair in listed)
    if without and (group or without < len(listed)):
        where = f" in {group!r}" if group else ""
        yield f"{without:,} of {len(listed):,} rows have no group{where}: each such image is a group of its own"


def _one_mask_for_many(listing: Listing) -> Iterator[str]:
    images: dict[Path, set[Path]] = defaultdict(set)
    for pair in listing.listed:
        if pair.mask_content is None:
            images[pair.mask].add(pair.image)
    shared = {mask: len(found) for mask, found in images.items() if len(found) > 1}
    if shared:
        mask = max(shared, key=lambda mask: shared[mask])
        yield (
            f"{len(shared):,} masks are listed for several images, such as {mask.relative_to(listing.root)} for "
            f"{shared[mask]:,}; right only where these show the same thing at the same place"
        )


def folders_drawn_apart(root: Path, listed: Sequence[Listed]) -> tuple[str, ...]:
    """About pairs whose splits are drawn image by image though images lie in folders, perhaps one for each patient."""
    free = {
        pair.image_name for pair in listed if pair.split is None and pair.group is None and pair.image_content is None
    }
    folders = Counter(map(os.path.dirname, free))
    if not 1 < len(folders) < len(free):
        return ()
    name = Path(min(folders)).relative_to(root).as_posix()
    return (
        f"images lie in {len(folders):,} folders, such as {name}: if each is a patient, video or scene, say --group "
        "'([^/]+)/[^/]*$', or what is trained on is much like what is scored",
    )
