"""Challengers to offer a registry."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tune.champions.promotion import Challenger
from tune.home import Home

FAKES = Path(__file__).parents[1] / "fakes"


@pytest.fixture(scope="session")
def made_up() -> Iterator[Any]:
    """The module that makes challengers, which is also a program; see fakes/challengers.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FAKES))
        yield importlib.import_module("challengers")


@pytest.fixture
def offer(home: Home, store: str, made_up: Any, tmp_path: Path) -> Callable[..., Challenger]:
    """Makes a challenger of the embedded store that scores so much on every image: offer(0.8)."""

    def made(dice: float, **changes: Any) -> Challenger:
        found: Challenger = made_up.challenger(store, home.artifacts.as_uri(), tmp_path / "trials", dice, **changes)
        return found

    return made


@pytest.fixture
def rescore(made_up: Any) -> Any:
    """Believes what a bundle says of itself."""
    return made_up.rescore
