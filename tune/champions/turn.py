"""One at a time at a domain's aliases, over any MLflow store and from any number of machines.

MLflow has no lock and no "set if still": its tags can only be written and read. That is enough for Lamport's bakery (A
New Solution of Dijkstra's Concurrent Programming Problem, 1974): everybody draws a number one above those in sight, and
waits for whoever is drawing and for all lower numbers. The numbers are tags of the registered model while they last.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "turn."
DRAWING = 0
PAUSE_S = 0.1
STALE_S = 60.0
"""Whoever is ahead and has given no sign for so long, by the clock of who waits, is taken for dead."""


class TurnLost(RuntimeError):
    """We were taken for dead: too long between two signs. Nothing more may be written in this turn; take another."""


@contextlib.contextmanager
def turn(client: MlflowClient, model: str, *, stale_s: float = STALE_S) -> Iterator[Callable[[], None]]:
    """Waits until nobody else is at the registered model's aliases, and keeps others waiting meanwhile.

    Gives a function to call right before a write that must not be late; it raises TurnLost if others stopped waiting.
    Do nothing slow inside. Raises MlflowException."""
    own = f"{PREFIX}{uuid.uuid4().hex}"
    signs = itertools.count()

    def sign(number: int) -> None:
        client.set_registered_model_tag(model, own, f"{number} {next(signs)}")

    sign(DRAWING)
    try:
        number = 1 + max(_numbers(_others(client, model, own)).values(), default=0)
        sign(number)
        _wait(client, model, own, number, sign, stale_s)

        def confirm() -> None:
            _others(client, model, own)
            sign(number)

        yield confirm
    finally:
        client.delete_registered_model_tag(model, own)


def _wait(client: MlflowClient, model: str, own: str, number: int, sign: Callable[[int], None], stale_s: float) -> None:
    """Returns when nobody draws or holds a lower number; equal numbers go by name."""
    seen: dict[str, tuple[str, float]] = {}  # last sign of each, and when we first saw it
    signed = time.monotonic()
    while True:
        others = _others(client, model, own)
        ahead = [key for key, drawn in _numbers(others).items() if drawn == DRAWING or (drawn, key) < (number, own)]
        if not ahead:
            return
        now = time.monotonic()
        for key in ahead:
            if key not in seen or seen[key][0] != others[key]:
                seen[key] = (others[key], now)
            elif now - seen[key][1] > stale_s:
                client.delete_registered_model_tag(model, key)
        if now - signed > stale_s / 6:
            sign(number)
            signed = now
        time.sleep(PAUSE_S)


def _others(client: MlflowClient, model: str, own: str) -> dict[str, str]:
    """What the others hold. Raises TurnLost if they have removed what we hold."""
    tags = client.get_registered_model(model).tags
    if own not in tags:
        raise TurnLost(f"{model}: others took this process for dead, so it may not go on")
    return {key: value for key, value in tags.items() if key.startswith(PREFIX) and key != own}


def _numbers(entries: dict[str, str]) -> dict[str, int]:
    return {key: int(value.partition(" ")[0]) for key, value in entries.items()}
