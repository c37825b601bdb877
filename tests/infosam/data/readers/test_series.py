from __future__ import annotations

from pathlib import Path

from infosam.data.readers.series import Names, with_series


def names(root: Path, *files: str) -> Names:
    return {str(Path(file).with_suffix("")): [root / file] for file in files}


def collapsed(images: tuple[str, ...], masks: tuple[str, ...]) -> tuple[list[str], list[str]]:
    root = Path("set")
    pictures, drawn = with_series(root / "images", names(root / "images", *images), names(root / "masks", *masks))
    return list(pictures), list(drawn)


def test_a_folder_of_slices_with_a_mask_beside_it_is_one_name() -> None:
    assert collapsed(("p/1.dcm", "p/2.dcm"), ("p.npy",)) == (["p"], ["p"])
    pictures, _ = with_series(Path("images"), names(Path("images"), "p/1.dcm", "p/2.dcm"), {})
    assert pictures == {"p": [Path("images/p")]}


def test_the_only_mask_below_the_folders_name_is_its_mask() -> None:
    assert collapsed(("a/p/1.dcm", "a/p/2.dcm"), ("a/p/liver.nii",)) == (["a/p"], ["a/p"])


def test_the_only_series_of_a_patient_is_the_patient_however_deep_it_lies() -> None:
    files = ("P1/STU/SER/1.dcm", "P1/STU/SER/2.dcm", "P2/S/A/1.dcm", "P2/S/A/2.dcm", "P2/S/B/1.dcm", "P2/S/B/2.dcm")
    assert collapsed(files, ("P1.nii.gz",))[0] == ["P1", "P2/S/A", "P2/S/B"]
    assert collapsed(files[:2], ("P1/STU/SER.nii.gz",))[0] == ["P1/STU/SER"]


def test_slices_with_masks_of_their_own_keep_their_names() -> None:
    images, masks = ("p/1.dcm", "p/2.dcm"), ("p/1.png", "p/2.png")
    assert collapsed(images, masks) == (["p/1", "p/2"], ["p/1", "p/2"])


def test_other_folders_stay() -> None:
    assert collapsed(("1.dcm", "2.dcm"), ("1.png",)) == (["1", "2"], ["1"])
    assert collapsed(("p/1.png", "p/2.dcm"), ("p.npy",)) == (["p/1", "p/2"], ["p"])
    assert collapsed(("p/1.dcm",), ("p/1.npy",)) == (["p/1"], ["p/1"])
