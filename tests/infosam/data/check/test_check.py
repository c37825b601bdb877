from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small_sources import coco, encoded, pixels
from spoiled import SIDE, SPOILS, copied, deep, disc, hair, mended, of_two_classes, photo, save, wider

from infosam import cli
from infosam.data.check import files, page, whole
from infosam.data.check.findings import KINDS
from infosam.data.check.fix import write_fixed
from infosam.data.check.page import render_page, show_report, write_page
from infosam.data.check.run import by_kind, check_source
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.threads import Room
from infosam.errors import DataError


def found_in(source: Path, **options: object) -> dict[str, list[str]]:
    report = check_source(source, **options)  # type: ignore[arg-type]
    return {name: [finding.what for finding in findings] for name, findings in by_kind(report.findings).items()}


def test_good_data_has_no_findings(clean: Path) -> None:
    assert found_in(clean) == {}


OF_THE_SET = {"nothing", "no-split", "no-train", "imbalance", "classes", "split-shift"}  # no single file is to blame
SECOND = {"duplicate": "6.png", "repeated": "2.png", "near-duplicate": "5.png"}


@pytest.mark.parametrize("kind", SPOILS)
def test_it_is_found_and_nothing_else(kind: str, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "huge":
        monkeypatch.setattr(files, "HUGE_PX", 250 * 250)
    SPOILS[kind](clean)
    findings = by_kind(check_source(clean).findings)
    found = {name: [one.what for one in of_kind] for name, of_kind in findings.items()}
    also = {
        "near-duplicate": {"name"}, "full": {"inverted"}, "split-shift": {"near-duplicate"},
        "classes": {"mask-levels"}, "nothing": {"no-split"}, "faint": {"sixteen-bit"}, "exif-mask": {"exif"},
    }  # fmt: skip
    assert kind in found
    assert set(found) <= {kind} | also.get(kind, set())
    for one in findings[kind]:
        assert one.what
        assert one.kind.why
        assert one.kind.cure
        if kind not in OF_THE_SET:
            assert one.file.startswith(str(clean))
            assert one.row
            assert Path(one.file).stem == Path(one.row).stem
            assert Path(one.file).name in (SECOND.get(kind, ""), "1.png", "1.tif", "1\n2 .png")


def test_every_kind_is_found_by_some_test() -> None:
    elsewhere = {"leak", "kin", "bomb", "absent", "mask-jpeg", "mask-void"}  # below, and in test_malformed.py
    assert KINDS.keys() == SPOILS.keys() | elsewhere
    assert files.PAIR_CHECKS.keys() <= KINDS.keys()
    assert whole.WHOLE_CHECKS.keys() <= KINDS.keys()


def test_a_group_in_two_splits_is_an_error(clean: Path) -> None:
    rows = [f"images/train/{n}.png,masks/train/{n}.png,train,p{n}" for n in range(3)]
    (clean / "list.csv").write_text(
        "image,label,split,group\n" + "\n".join([*rows, "images/val/4.png,masks/val/4.png,val,p1"]) + "\n"
    )
    leak = by_kind(check_source(clean / "list.csv").findings)["leak"][0]
    assert "group p1 is in two splits" in leak.what
    assert (leak.row, leak.file) == ("list.csv:5", str(clean / "images/val/4.png"))


@pytest.mark.parametrize("given", [True, False])
def test_images_of_one_patient_by_their_names_are_doubtful_in_two_splits(given: bool, clean: Path) -> None:
    rows = []
    for number in range(8):
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[number]
        for folder in ("images", "masks"):
            path = clean / folder / split / f"{number}.png"
            path.rename(path.with_name(f"patient{number % 5}_{number}.png"))
        name = f"{split}/patient{number % 5}_{number}.png"
        rows.append(f"images/{name},masks/{name}" + f",{split}" * given)
    (clean / "list.csv").write_text("image,label" + ",split" * given + "\n" + "\n".join(rows) + "\n")
    (what,) = found_in(clean / "list.csv")["kin"]
    assert what.endswith(r"--group '(patient\d+)' keeps them in one split")
    assert ("patient0_0.png (train) and patient0_5.png (val)" in what) is given


def test_a_bright_spot_in_a_picture_of_16_bits_does_not_make_all_else_black_unseen(clean: Path) -> None:
    values = np.asarray(photo(1).convert("L")).astype(np.uint16)
    values[0, 0] = 65535
    Image.fromarray(values).save(clean / "images/train/1.png")
    assert found_in(clean)["faint"] == ["1.png: nearly all of its values, as they are shown, are 0 to 1 of 255"]


def test_a_row_that_cannot_be_read_is_named_with_its_list(clean: Path) -> None:
    (clean / "list.csv").write_text("image,label\nimages/train/0.png,\n../x: y.png,masks/train/0.png\n")
    rows = [(one.kind.name, one.row, one.file) for one in check_source(clean / "list.csv").findings]
    assert rows == [("listing", f"list.csv:{line}", str(clean / "list.csv")) for line in (2, 3)]


def test_a_file_that_cannot_be_cut_into_tiles_is_named_with_its_row(clean: Path) -> None:
    (clean / "images/train/1.png").write_bytes(encoded(pixels(1))[:200])
    findings = check_source(clean, ReadOptions(parts=PartOptions(tile=32))).findings
    (one,) = [one for one in findings if one.kind.severity == "error"]
    assert (one.row, one.file) == ("1.png", str(clean / "images/train/1.png"))


def test_large_pictures_are_no_noise_on_the_screen(clean: Path, tmp_path: Path) -> None:
    """Pillow warns of what one may open."""
    lines = "from PIL import Image; Image.MAX_IMAGE_PIXELS = 3000; from infosam.cli import main; main()"
    arguments = [sys.executable, "-c", lines, "data", "check", str(clean)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_bits_of_a_deep_picture_are_well(clean: Path, tmp_path: Path) -> None:
    deep(16)(clean)
    assert found_in(clean) == {"sixteen-bit": ["1.png: mode RGB;16"]}
    assert mended(clean, tmp_path / "out").findings == ()


def test_borders_that_are_no_objects_are_told(clean: Path) -> None:
    drawn = disc(value=1)
    drawn[0] = 255
    Image.fromarray(drawn).save(clean / "masks/train/1.png")
    singly = ReadOptions(choice=MaskChoice(instances=True))
    assert found_in(clean, options=singly)["mask-void"] == ["1.png: 255 beside labels from 0 to 1"]


def test_one_class_for_each_image_is_told(clean: Path) -> None:
    of_two_classes(clean)
    assert found_in(clean)["classes"] == [
        "the object has 3 different values in masks of mode L: 255 in 5, 3 in 2, 7 in 1"
    ]
    chosen = ReadOptions(choice=MaskChoice(classes=("3", "7", "255")))
    assert "classes" not in found_in(clean, options=chosen)


def test_what_an_import_may_do_a_check_may_too(clean: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Label maps of several objects, and splits that leak and will be forgotten."""
    two = np.maximum(disc(value=1), np.eye(SIDE, dtype=np.uint8) * 2)
    for path in (clean / "masks").rglob("*.png"):
        Image.fromarray(two).save(path)
    splits = (("train", "p"), ("val", "p"), ("test", "q"), ("train", "r"))
    rows = [f"images/train/{n}.png,masks/train/{n}.png,{split},{group}" for n, (split, group) in enumerate(splits)]
    (clean / "list.csv").write_text("\n".join(["image,label,split,group", *rows]) + "\n")
    check = ["data", "check", str(clean / "list.csv")]
    for more, code in (([], 2), (["--instances"], 2), (["--instances", "--new-splits"], 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*check, *more])
        assert (ended.value.code or 0) == code, more
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([*check, "--instances", "--fix", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "--fix with --instances" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_mask_of_two_values_in_a_jpeg_is_doubtful(clean: Path) -> None:
    flat = np.zeros((SIDE, SIDE), np.uint8)
    flat[:, 32:] = 255  # along the blocks of JPEG, so that no value changes
    Image.fromarray(flat).save(clean / "masks/train/1.png", format="JPEG", quality=100)
    assert "mask-jpeg" in found_in(clean)


def test_several_masks_of_an_image_are_no_duplicates(clean: Path) -> None:
    (clean / "list.csv").write_text(
        "image,label\nimages/train/0.png,masks/train/0.png\nimages/train/0.png,masks/train/1.png\n"
        "images/train/2.png,masks/train/2.png\nimages/train/3.png,masks/train/3.png\n"
    )
    assert found_in(clean / "list.csv").keys() == {"no-split"}


def test_equal_pictures_matter_before_splits_are_drawn(clean: Path, tmp_path: Path) -> None:
    rows = [f"images/{path},masks/{path}" for path in ("train/0.png", "train/1.png", "train/2.png", "val/4.png")]
    (clean / "list.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    copied(clean, "train/2")
    found = found_in(clean / "list.csv")
    assert found.keys() == {"duplicate", "no-split"}
    assert found["duplicate"] == ["2.png (no split yet): the same picture as 1.png (no split yet)"]
    assert len(mended(clean / "list.csv", tmp_path / "out").listing.listed) == 3


def test_flat_pictures_are_not_all_alike(clean: Path) -> None:
    for path, tone in (("train/0", 3), ("val/4", 200), ("test/6", 90)):
        Image.new("RGB", (SIDE, SIDE), (tone,) * 3).save(clean / f"images/{path}.png")
    assert set(found_in(clean)) == {"faint"}


def test_the_model_decides_what_is_thin(clean: Path) -> None:
    hair(clean)
    assert "thin" in found_in(clean)
    assert "thin" not in found_in(clean, mask_px=1024)


def test_progress_reaches_the_end_and_empty_masks_can_be_meant(clean: Path) -> None:
    Image.fromarray(disc(value=0)).save(clean / "masks/train/1.png")
    seen: list[tuple[int, int]] = []
    report = check_source(clean, allow_empty=True, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]
    assert report.findings == ()


def test_other_layouts_and_classes_are_checked_as_well(tmp_path: Path) -> None:
    report = check_source(coco(tmp_path / "set"), ReadOptions(choice=MaskChoice(classes=("box",))))
    assert len(report.facts) == 6
    assert report.count("error") == 0


# ------------------------------------------------------------------------------------------------------ page, command


def test_the_page_shows_pictures_and_escapes_names(clean: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)<"
    save(clean, f"train/{evil}.png", photo(30), disc(value=0))
    text = render_page(check_source(clean))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("data:image/jpeg;base64,") == 1
    assert "Why it matters" in text
    assert str(clean / "masks") in text
    write_page(check_source(clean), tmp_path / "page.html")
    assert {path.name for path in tmp_path.iterdir()} == {"clean", "page.html", "findings.csv"}
    with (tmp_path / "findings.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["finding"], row["file"]) == ("blank", str(clean / "masks" / f"train/{evil}.png"))
    assert all(row[name] for name in ("row", "what", "why", "cure"))
    with pytest.raises(DataError, match="is a folder"):
        write_page(check_source(clean), tmp_path)


def test_the_page_names_the_list_of_all(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SHOWN_PER_KIND", 2)
    for path in (clean / "masks/train").iterdir():
        Image.fromarray(disc(value=0)).save(path)
    assert "... and 2 more: all are in <code>findings.csv</code>" in render_page(check_source(clean))


def test_the_table_says_why_and_what_was_mended(clean: Path, tmp_path: Path) -> None:
    SPOILS["mask-palette"](clean)
    report = check_source(clean)
    report = replace(report, findings=write_fixed(report, tmp_path / "out").findings)
    console = Console(width=250, record=True, file=io.StringIO())
    show_report(console, report)
    row = next(line for line in console.export_text().splitlines() if "mask-palette" in line)
    assert [cell.strip() for cell in row.split("│")][1:9] == [
        "note", "mask-palette", "1", "1", "", "1.png: has a palette", "the index counts, not the colour",
        "save as grey 0 and 255 (or --fix)",
    ]  # fmt: skip


def test_each_problem_of_a_pair_stands_under_its_own_file(clean: Path) -> None:
    (clean / "images/train/1.png").write_bytes(b"text")
    for name in (1, 2):
        path = clean / f"masks/train/{name}.png"
        path.write_bytes(path.read_bytes()[:-30])
    found = [(one.kind.name, Path(one.file).parts[-3:]) for one in check_source(clean).findings]
    assert found == [
        ("format", ("images", "train", "1.png")),
        ("damaged", ("masks", "train", "1.png")),
        ("damaged", ("masks", "train", "2.png")),
    ]


def test_what_an_import_refuses_a_check_refuses_too(clean: Path, tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "two", f"{number}.png", photo(number), disc())
    assert "too few" in found_in(tmp_path / "two")["nothing"][0]
    chosen = ReadOptions(choice=MaskChoice(classes=("9",)))
    assert "all 8 masks are empty" in found_in(clean, options=chosen)["nothing"][0]
    for path in (clean / "masks").rglob("*.png"):
        Image.fromarray(disc(value=0)).save(path)
    assert "nothing" in found_in(clean, allow_empty=True)


def test_mostly_empty_masks_are_told_although_empty_ones_are_meant(clean: Path) -> None:
    for name in ("val/4", "val/5", "train/0"):
        Image.fromarray(disc(value=0)).save(clean / f"masks/{name}.png")
    assert found_in(clean, allow_empty=True) == {"imbalance": ["2 of 2 masks in val are empty"]}


def test_two_ways_to_write_yes_are_no_classes(clean: Path) -> None:
    Image.fromarray(disc(value=1)).save(clean / "masks/train/1.png")
    assert found_in(clean).keys() == {"mask-levels"}


@pytest.mark.parametrize("big", [True, False])
def test_swapped_masks_are_found_by_border_and_palette(big: bool, clean: Path) -> None:
    """Of a large object less than half is background; a palette may show black on white what is stored as 1 on 0."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    mask = Image.fromarray(np.where(x**2 + y**2 < 31**2, 0, 255).astype(np.uint8) if big else disc(value=1))
    if not big:
        mask = Image.fromarray(disc(value=1), mode="P")
        mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(clean / "masks/train/1.png")
    assert "inverted" in found_in(clean)


def test_huge_pictures_take_what_room_there_is_and_give_it_back(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wider(clean)
    (clean / "masks/train/2.png").write_bytes(b"text")
    taken: list[int] = []

    class Counted(Room):
        def take(self, amount: int) -> int:
            taken.append(amount)
            return super().take(amount)

        def give_back(self, amount: int) -> None:
            taken.append(-amount)
            super().give_back(amount)

    monkeypatch.setattr(files, "_ROOM", Counted(80_000))
    monkeypatch.setattr(files, "HUGE_PX", 250 * 250)
    assert found_in(clean).keys() == {"format", "huge"}
    assert [amount for amount in taken if amount] == [90_000, -80_000]  # alone, if it is more than all


def test_jpeg_2000_is_found_in_folders(clean: Path) -> None:
    (clean / "images/train/1.png").unlink()
    photo(1).save(clean / "images/train/1.jp2")
    assert found_in(clean) == {}


def test_opaque_pictures_are_not_transparent(clean: Path) -> None:
    photo(1).convert("RGBA").save(clean / "images/train/1.png")
    assert found_in(clean) == {}


def test_the_command_counts_and_leaves_with_2_only_for_errors(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    Image.fromarray(255 - disc()).save(clean / "masks/train/1.png")
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "check", str(clean)])
    assert caught.value.code in (0, None)
    assert "8 pairs: 0 errors, 1 warning, 0 notes" in capsys.readouterr().out
    Image.fromarray(disc(value=0)).save(clean / "masks/train/2.png")
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "check", str(clean), "--out", str(tmp_path / "p.html")])
    assert caught.value.code == 2
    assert "1 error, 1 warning" in capsys.readouterr().err
    assert (tmp_path / "p.html").is_file()
