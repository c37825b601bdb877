from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from made_sweeps import make_sweep, values_of
from PIL import Image

from infosam.data.card import read_card
from infosam.evaluation import evaluate_bundle
from tune.kept_scores import save_scores, scores_of
from tune.report.gains import gains
from tune.report.record import Record, open_record
from tune.report.regressions import worst_regressions


@pytest.fixture
def record(dataset: Path, trained: Path, tmp_path: Path) -> Record:
    """A sweep whose champion is a real bundle, scored on real test images."""
    card = read_card(dataset)
    data = {"name": card.domain, "digest": card.digest, "source": str(dataset), "counts": dict(card.counts)}
    settings = {"data": str(dataset), "run": {"model": {"image_px": 64}, "train": {"epochs": 8}}}
    folder = make_sweep(tmp_path / "disc", trials=1, settings=settings, data=data)
    bundle = folder / "trials" / "t0000" / "bundle"
    bundle.symlink_to(trained)
    save_scores(evaluate_bundle(bundle, dataset, "test", device="cpu"), bundle)
    return open_record(folder)


def test_the_images_that_lost_most_are_drawn(record: Record) -> None:
    first = gains(record)[0]
    assert first.differences is not None
    lower = dataclasses.replace(first, differences=first.differences - 1)  # whatever an epoch of training did
    shown = worst_regressions(record, lower)
    assert not isinstance(shown, str)
    assert [one.difference for one in shown] == sorted(lower.differences.tolist())[:4]
    assert {one.image_id for one in shown} == set(first.ids)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0].adapter.removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (48, 48)


def test_without_a_loss_there_is_nothing_to_draw(record: Record) -> None:
    first = gains(record)[0]
    assert first.differences is not None
    better = dataclasses.replace(first, differences=np.abs(first.differences))
    assert worst_regressions(record, better) == "No test image lost Dice with truth box."


def test_kept_scores_are_those_of_every_image(record: Record, dataset: Path) -> None:
    bundle = record.bundle
    assert bundle is not None
    kept, measured = scores_of(bundle), evaluate_bundle(bundle, dataset, "test", device="cpu")
    assert kept is not None
    assert kept.rows == measured.rows
    assert kept.per_image == measured.per_image


def test_values_stay_in_the_space(record: Record) -> None:
    assert all(record.space[path].contains(value) for path, value in values_of(record.config, 3).items())
