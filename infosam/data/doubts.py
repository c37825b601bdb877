"""What can be read but is perhaps not meant, told as notes of a source: nothing here stops an import."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from infosam.data.card import Split
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
    images: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for pair in listing.listed:
        if pair.mask_content is None:
            first = images.setdefault(pair.mask_name, pair.image_name)
            if first != pair.image_name:
                several.setdefault(pair.mask_name, {first}).add(pair.image_name)
    if several:
        mask = max(several, key=lambda mask: len(several[mask]))
        yield (
            f"{len(several):,} masks are listed for several images, such as {Path(mask).relative_to(listing.root)} for "
            f"{len(several[mask]):,}; right only where these show the same thing at the same place"
        )


def folders_drawn_apart(root: Path, listed: Sequence[Listed]) -> tuple[str, ...]:
    """About pairs with drawn splits, if folders of images, perhaps one for each patient, are in more than one.

    A single folder to train on, beside those of given splits, is no hint."""
    folders: dict[str, set[Split | None]] = {}
    for pair in listed:
        if pair.group is None and pair.image_content is None:
            folders.setdefault(os.path.dirname(pair.image_name), set()).add(pair.split)
    apart = [folder for folder, splits in folders.items() if len(splits) > 1]
    of_train = sum("train" in splits for splits in folders.values())
    if of_train < 2 or not apart:
        return ()
    name = Path(min(apart)).relative_to(root).as_posix()
    return (
        f"images to train on lie in {of_train:,} folders, such as {name}: if each is a patient, video or scene, "
        "say --group '([^/]+)/[^/]*$', or what is trained on is much like what is scored",
    )
