from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from small_sources import SIZE
from small_volumes import dicom_dataset, labels, save_dicom

from infosam.data.manifest import discover
from infosam.data.pairs import PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError

STORED = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
RAW = {"RescaleSlope": None, "RescaleIntercept": None}


def table(first: int, bits: int, entries: list[int]) -> Items:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return Items([item])


def series(folder: Path, **more: object) -> Path:
    """Three patients of four equal slices."""
    (folder / "masks").mkdir(parents=True)
    for number in range(3):
        for place in range(4):
            save_dicom(folder / f"images/p{number}/{place}.dcm", dicom_dataset(STORED, f"p{number}", place, **more))
        np.save(folder / f"masks/p{number}.npy", labels(number))
    return folder


def shown(source: Path, **parts: object) -> np.ndarray:
    options = ReadOptions(parts=PartOptions(slices="all", **parts))
    pairs = sorted(discover(source, options).pairs, key=lambda pair: pair.row)
    return open_both(pairs[0])[0].rgb[:, :, 0]


def between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


SQUARES = [n * n // 10 for n in range(700)]


def test_a_modality_table_gives_the_unit_of_the_window(tmp_path: Path) -> None:
    source = series(
        tmp_path, **RAW, ModalityLUTSequence=table(20, 16, SQUARES), VOILUTFunction="LINEAR_EXACT",
        WindowCenter=10_000, WindowWidth=20_000,
    )  # fmt: skip
    units = np.array(SQUARES)[np.clip(STORED.astype(int) - 20, 0, 699)]
    np.testing.assert_array_equal(shown(source), between(units, 0, 20_000))
    np.testing.assert_array_equal(shown(source, window=(500.0, 1000.0)), between(units, 0, 1000))


@pytest.mark.parametrize("rescaled", [False, True], ids=["stored", "rescaled"])
def test_a_table_of_the_file_goes_before_its_window_and_the_users_choice_before_both(
    rescaled: bool, tmp_path: Path
) -> None:
    scale = {} if rescaled else RAW
    shift = -1024 if rescaled else 0
    source = series(
        tmp_path, **scale, VOILUTSequence=table(shift, 12, [4095 - n for n in range(700)]),
        WindowCenter=10, WindowWidth=20, PixelRepresentation=int(rescaled),
    )  # fmt: skip
    brightness = 4095 - np.clip(STORED.astype(int), 0, 699)
    np.testing.assert_array_equal(shown(source), between(brightness, 0, 4095))
    np.testing.assert_array_equal(
        shown(source, window=(300.0 + shift, 200.0)), between(STORED.astype(int) + shift, 200 + shift, 400 + shift)
    )


def test_a_sigmoid_is_one(tmp_path: Path) -> None:
    source = series(tmp_path, **RAW, VOILUTFunction="SIGMOID", WindowCenter=300, WindowWidth=200)
    np.testing.assert_array_equal(shown(source), between(1 / (1 + np.exp(-4 * (STORED - 300.0) / 200)), 0, 1))


@pytest.mark.parametrize(
    ("function", "low", "high"), [("LINEAR", 200, 399), ("LINEAR_EXACT", 200, 400)], ids=["linear", "exact"]
)
def test_windows_are_those_of_the_standard(function: str, low: int, high: int, tmp_path: Path) -> None:
    source = series(tmp_path, **RAW, VOILUTFunction=function, WindowCenter=300, WindowWidth=200)
    np.testing.assert_array_equal(shown(source), between(STORED, low, high))


def test_tables_that_change_from_slice_to_slice_are_told(tmp_path: Path) -> None:
    source = series(tmp_path, **RAW, VOILUTSequence=table(0, 12, list(range(700))))
    dataset = pydicom.dcmread(source / "images/p0/2.dcm")
    dataset.VOILUTSequence = table(0, 12, [4095] * 700)
    save_dicom(source / "images/p0/2.dcm", dataset)
    found = discover(source, ReadOptions(parts=PartOptions(slices="all")))
    assert "DICOM windows that change from slice to slice are not taken; --window chooses one" in found.notes
    low, high = np.percentile(np.stack([STORED] * 4), [0.5, 99.5])
    np.testing.assert_array_equal(shown(source), between(STORED, low, high))


def broken(item: Items, name: str) -> Items:
    del item[0][name]
    return item


@pytest.mark.parametrize(
    "more",
    [
        {"VOILUTFunction": "CUBIC", "WindowCenter": 3, "WindowWidth": 3},
        {"VOILUTSequence": broken(table(0, 12, [1, 2]), "LUTData")},
        {"VOILUTSequence": table(0, 40, [1, 2])},
        {"VOILUTSequence": broken(table(0, 12, [1, 2]), "LUTDescriptor")},
    ],
    ids=["function", "no data", "bits", "no descriptor"],
)
def test_what_makes_no_sense_is_refused(more: dict[str, object], tmp_path: Path) -> None:
    source = series(tmp_path, **RAW, **more)
    with pytest.raises(DataError, match=r"\.dcm: the header of the image makes no sense; export it again"):
        shown(source)


def test_a_damaged_modality_table_is_refused(tmp_path: Path) -> None:
    item = broken(table(0, 16, [1, 2]), "LUTData")
    source = series(tmp_path, **RAW, ModalityLUTSequence=item)
    with pytest.raises(Exception, match=r"\.dcm: the (header of the )?image (is damaged|makes no sense).*; "):
        shown(source)
