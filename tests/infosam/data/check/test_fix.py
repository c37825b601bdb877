from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spoiled import SIDE, SPOILS, disc, mended, photo, save, smeared, turned

from infosam import cli
from infosam.data.check.findings import KINDS
from infosam.data.check.fix import write_fixed
from infosam.data.check.run import check_source
from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, ReadOptions
from infosam.data.pixels import open_pair
from infosam.errors import DataError


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.fix and name in SPOILS])
def test_what_can_be_mended_is_gone_in_the_copy(kind: str, clean: Path, tmp_path: Path) -> None:
    SPOILS[kind](clean)
    report = mended(clean, tmp_path / "out")
    assert report.findings == ()
    assert len(report.listing.listed) == (7 if kind == "duplicate" else 8)
    with (tmp_path / "out" / "findings.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == kind]
    assert [row["mended"] for row in rows] == ["True"] * len(rows)
    assert rows


def test_a_smeared_mask_is_thresholded(clean: Path, tmp_path: Path) -> None:
    smeared()(clean)
    mended(clean, tmp_path / "out")
    masks = [open_pair(pair)[0].mask for pair in discover(tmp_path / "out" / "list.csv").pairs]
    assert all(np.mean(mask != (disc() > 0)) < 0.005 for mask in masks)


def test_what_cannot_be_mended_is_left_out_and_told(clean: Path, tmp_path: Path) -> None:
    SPOILS["size"](clean)
    report = mended(clean, tmp_path / "out")
    assert len(report.listing.listed) == 7
    with (tmp_path / "out" / "findings.csv").open(newline="") as file:
        assert [(row["finding"], row["mended"]) for row in csv.DictReader(file)] == [("size", "False")]


def test_good_files_are_copied_byte_by_byte(clean: Path, tmp_path: Path) -> None:
    mended(clean, tmp_path / "out")
    originals = sorted(path.read_bytes() for path in (clean / "images").rglob("*.png"))
    assert sorted(path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()) == originals


def test_nothing_that_exists_is_touched(clean: Path, tmp_path: Path) -> None:
    for place in (clean, clean / "images/train/0.png"):
        with pytest.raises(DataError, match="already exists"):
            write_fixed(check_source(clean), place)


def test_a_copy_of_nothing_is_not_made(clean: Path, tmp_path: Path) -> None:
    for path in (clean / "masks").rglob("*.png"):
        Image.fromarray(disc(value=0)).save(path)
    with pytest.raises(DataError, match="no row could be mended"):
        write_fixed(check_source(clean), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def outcomes(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "findings.csv").open(newline="") as file:
        return [(row["finding"], row["mended"], row["left_out"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_mask_of_the_unturned_picture_is_turned_with_it(orientation: int, clean: Path, tmp_path: Path) -> None:
    turned(orientation, 48, mask_too=False)(clean)
    assert mended(clean, tmp_path / "out").findings == ()
    (pair,) = [pair for pair in discover(tmp_path / "out" / "list.csv").pairs if pair.image.stem.endswith("3_1")]
    drawn = disc()[:, :48] > 0
    np.testing.assert_array_equal(open_pair(pair)[0].mask, np.rot90(drawn, -1 if orientation == 6 else 1))


def test_an_image_with_several_masks_is_copied_once(clean: Path, tmp_path: Path) -> None:
    rows = [f"images/train/{n}.png,masks/train/{mask}.png" for n in range(3) for mask in range(n, n + 2)]
    (clean / "list.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    report = mended(clean / "list.csv", tmp_path / "out")
    assert {finding.kind.name for finding in report.findings} == {"no-split"}
    assert (len(report.facts), len([*(tmp_path / "out/images").iterdir()])) == (6, 3)


def test_a_leaking_group_stays_where_it_is_scored_last(clean: Path, tmp_path: Path) -> None:
    places = ("train", "g"), ("train", "h"), ("val", "g"), ("test", "g"), ("val", "i")
    rows = [
        f"images/{path}.png,masks/{path}.png,{split},{group}"
        for path, (split, group) in zip(("train/0", "train/1", "val/4", "test/6", "val/5"), places, strict=True)
    ]
    (clean / "list.csv").write_text("\n".join(["image,label,split,group", *rows]) + "\n")
    report = mended(clean / "list.csv", tmp_path / "out")
    assert report.findings == ()
    assert [(pair.split, pair.group) for pair in report.listing.listed] == [("train", "h"), ("test", "g"), ("val", "i")]
    assert outcomes(tmp_path / "out") == [("leak", "True", "True")]


def test_an_image_of_two_groups_keeps_the_first(clean: Path, tmp_path: Path) -> None:
    rows = [f"images/train/{n}.png,masks/train/{n}.png,g{n}" for n in range(4)]
    (clean / "list.csv").write_text(
        "\n".join(["image,label,group", *rows, "images/train/1.png,masks/train/2.png,x"]) + "\n"
    )
    assert mended(clean / "list.csv", tmp_path / "out").count("error") == 0
    assert ("leak", "True", "True") in outcomes(tmp_path / "out")


def test_a_mask_smeared_in_colours_is_smeared_too(clean: Path, tmp_path: Path) -> None:
    """What most programs write who save a mask as JPEG: three equal channels."""
    (clean / "masks/train/1.png").unlink()
    Image.fromarray(disc()).convert("RGB").save(clean / "masks/train/1.jpg", quality=75)
    (finding,) = check_source(clean).findings
    assert (finding.kind.name, finding.file) == ("mask-smeared", str(clean / "masks/train/1.jpg"))
    assert mended(clean, tmp_path / "out").findings == ()


def test_images_without_the_class_are_left_out_of_the_copy(clean: Path, tmp_path: Path) -> None:
    for name in ("train/0", "train/1", "train/2", "val/4", "test/6"):
        Image.fromarray(disc(value=3)).save(clean / f"masks/{name}.png")
    report = check_source(clean, ReadOptions(choice=MaskChoice(classes=("3",))))
    assert {finding.kind.name: finding.kind.severity for finding in report.findings} == {"absent": "note"}
    assert write_fixed(report, tmp_path / "out").written == 5
    assert outcomes(tmp_path / "out") == [("absent", "False", "True")] * 3


def test_the_copy_never_lies_in_the_source(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "check", str(clean), "--fix", str(clean / "images" / "clean")])
    assert ended.value.code == 2
    assert "never touched" in capsys.readouterr().err
    assert {path.name for path in clean.iterdir()} == {"images", "masks"}


def test_a_file_of_several_pictures_is_left_out_of_the_copy(clean: Path, tmp_path: Path) -> None:
    pages = [photo(1), photo(40)]
    pages[0].save(clean / "images/train/1.png", save_all=True, append_images=pages[1:])
    (finding,) = check_source(clean).findings
    assert (finding.kind.name, finding.kind.severity) == ("pages", "error")
    assert mended(clean, tmp_path / "out").findings == ()
    assert outcomes(tmp_path / "out") == [("pages", "False", "True")]


def test_a_copy_that_cannot_be_imported_is_no_success(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "two", f"{number}.png", photo(number), disc(SIDE))
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "check", str(tmp_path / "two"), "--fix", str(tmp_path / "out")])
    assert ended.value.code == 2
