"""Data sets of a sweep in a bucket, `data: s3://bucket/polyp`: each machine copies them once, see `tune.fetched`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune.fetched import DIGEST_MARK
from tune.home import find_home


def with_copies(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a sweep file with a folder in place of each address in `data` and `domains`, and in
    `resources.fetch` where every machine gets the folder from.

    The folder is named after the content that the bucket holds now, which is asked for; the sweep keeps to it. Raises
    DataError for an address without a data set."""
    found, addresses = dict(settings), dict[str, str]()
    if _is_address(found.get("data")):
        found["data"] = _place_of(found["data"], addresses)
    if isinstance(found.get("domains"), list):
        found["domains"] = [_place_of(one, addresses) if _is_address(one) else one for one in found["domains"]]
    if addresses:
        resources = found.get("resources") or {}
        if isinstance(resources, Mapping):  # else it is refused with all other mistakes of the file
            found["resources"] = {**resources, "fetch": {**(resources.get("fetch") or {}), **addresses}}
    return found


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and "://" in value


def _place_of(uri: str, addresses: dict[str, str]) -> str:
    from infosam.data.remote import copy_name, remote_card

    card = remote_card(uri)
    place = str(find_home().remote / copy_name(card))
    addresses[place] = f"{uri.rstrip('/')}{DIGEST_MARK}{card.digest}"
    return place
