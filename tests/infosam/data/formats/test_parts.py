"""What holds for all formats together: options, missing libraries, the command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_sources import huggingface, pixels, truth, write_pictures
from small_volumes import (
    FORMATS,
    dicom_dataset,
    intensities,
    labels,
    nifti,
    open_all,
    save_dicom,
    scene,
    write_nifti,
    write_pages,
    write_tiff,
)
from typer.testing import CliRunner

from infosam import cli
from infosam.data.commands import app
from infosam.data.manifest import Splitting, discover
from infosam.data.masks import Unusable
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import ConfigError, DataError

LIBRARIES = {"geotiff": ("rasterio", "geo"), "nifti": ("nibabel", "medical"), "dicom": ("pydicom", "medical")}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FORMATS[name](tmp_path / "set")
    library, extra = LIBRARIES[name]
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("COLUMNS", "4000")
    for command in (["check", str(source)], ["import", str(source), "--domain", "d", "--out", str(tmp_path / "o")]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["data", *command])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert f"reading it needs {library}, which is not installed; pip install 'infosam[{extra}]'" in said
    assert not (tmp_path / "o").exists()


def test_ordinary_pictures_need_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("rasterio", "nibabel", "pydicom"):
        monkeypatch.setitem(sys.modules, library, None)
    write_pictures(tmp_path)
    open_all(tmp_path)
    open_all(tmp_path, ReadOptions(parts=PartOptions(tile=16)))


@pytest.mark.parametrize("parts", [PartOptions(bands=(1,)), PartOptions(window=(0, 1)), PartOptions(axis="axial")])
def test_an_option_that_concerns_no_file_is_refused(parts: PartOptions, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(ConfigError, match=r"--(bands|window|axis) has no effect on any file of the source"):
        discover(tmp_path, ReadOptions(parts=parts))


def test_pictures_inside_tables_are_cut_too(tmp_path: Path) -> None:
    pairs = discover(huggingface(tmp_path / "set"), ReadOptions(parts=PartOptions(tile=16))).pairs
    first = [pair for pair in pairs if "000001_" in pair.image.as_posix() and "train" in pair.image.as_posix()]
    assert {pair.split for pair in first} == {first[0].split}
    for pair in first:
        top, left = (int(word[1:]) for word in pair.image.stem.split("_")[-2:])
        picture, drawing = open_both(pair)
        np.testing.assert_array_equal(picture.rgb, pixels(0)[top : top + 16, left : left + 16])
        np.testing.assert_array_equal(drawing.masks[0], truth(0)[top : top + 16, left : left + 16])


def test_several_masks_of_a_volume_are_rows_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        write_nifti(tmp_path / f"images/v{number}.nii.gz", intensities(number))
        for organ in range(2):
            write_nifti(tmp_path / f"masks/v{number}_{organ}.nii.gz", np.roll(labels(number), organ, axis=0))
    pairs = discover(tmp_path).pairs
    assert len(pairs) == 3 * 2 * 2
    assert len({pair.image for pair in pairs}) == 3 * 3
    assert len({(pair.image, pair.mask) for pair in pairs}) == 12


# ------------------------------------------------------------------------------------------------------- command line


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", *arguments])
    code = caught.value.code
    return int(code) if isinstance(code, int) else 0, capsys.readouterr().err


def test_the_options_reach_import_and_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    source = FORMATS["nifti"](tmp_path / "set")
    options = ["--window", "40,400", "--axis", "coronal", "--slices", "all", "--tile", "16", "--overlap", "4"]
    out = ["--domain", "d", "--out", str(tmp_path / "made")]
    code, text = said(["import", str(source), *out, *options, "--allow-empty"], capsys)
    assert code == 0, text
    code, text = said(["import", str(source), *out, "--overwrite"], capsys)
    assert code == 0, text
    assert "note: volumes cut into slices: 3 axial; --axis chooses" in text
    assert "note: 6 of 12 slices and tiles without an object left out; --slices all keeps them" in text
    assert said(["check", str(source)], capsys)[0] == 0
    code, text = said(["check", str(source), *options], capsys)
    assert code == 2  # blank slices are wanted, but not that they are blank
    scenes = FORMATS["geotiff"](tmp_path / "scenes")
    assert said(["check", str(scenes), "--bands", "4,3,2"], capsys)[0] == 0
    assert "no band 5, it has 4 bands" in said(["import", str(scenes), *out, "--bands", "5,3,2"], capsys)[1]


BAD_OPTIONS = {
    "--bands 4,3": "expected three numbers from 1, such as 4,3,2, or one for grey",
    "--bands 0,1,2": "expected three numbers from 1",
    "--bands red": "expected three numbers from 1",
    "--window 40": "expected centre and width, such as 40,400",
    "--window 40,0": "the width is above 0",
    "--window nan,1": "expected centre and width",
    "--window a,b": "expected centre and width",
    "--tile 4": "a tile has at least 16 px a side",
    "--overlap 8": "only tiles overlap; say --tile as well",
    "--tile 64 --overlap 33": "expected 0 to half a tile, 32",
    "--tile 64 --overlap -1": "expected 0 to half a tile, 32",
    "--axis upwards": "upwards",
    "--slices some": "some",
}


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_option_is_refused_before_anything_is_read(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    for command in (["check"], ["import", "--domain", "d", "--out", str(tmp_path / "o")]):
        code, text = said([*command, str(tmp_path / "nothing there"), *words.split()], capsys)
        assert code == 2
        assert BAD_OPTIONS[words] in text
        assert "nothing there" not in text


@pytest.mark.parametrize("command", ["import", "check"])
def test_help_names_the_options(command: str) -> None:
    output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for word in ("--bands", "--window", "--axis", "--slices", "--tile", "--overlap", "--images", "--masks"):
        assert word in output
    if command == "import":
        for word in ("GeoTIFF", "NIfTI", "DICOM", "npy"):
            assert word in output


# --------------------------------------------------------------------------------------------------------- odd content


FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WRITERS: dict[str, Callable[[Path], object]] = {
    "tif": lambda path: write_tiff(path, np.arange(4 * 9 * 11, dtype=np.uint16).reshape(4, 9, 11)),
    "tiff": lambda path: write_pages(path, (intensities(0) + 1000).astype(np.uint16)),
    "nii": lambda path: write_nifti(path, intensities(0)),
    "npy": lambda path: np.save(path, intensities(0)),
    "npz": lambda path: np.savez(path, intensities(0)),
    "dcm": lambda path: save_dicom(path, dicom_dataset((intensities(0)[0] + 1024).astype(np.uint16), "p", 0)),
}


def test_a_class_that_no_mask_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 12 looked at; the masks hold 0, 1: choose with --class"):
        discover(nifti(tmp_path), ReadOptions(choice=MaskChoice(classes=("7",))))


def test_tiles_of_one_scene_can_be_split_by_rows(tmp_path: Path) -> None:
    write_tiff(tmp_path / "images/a.tif", scene(96, 96))
    write_tiff(tmp_path / "masks/a.tif", np.ones((1, 96, 96), np.uint8))
    options = ReadOptions(parts=PartOptions(tile=32))
    with pytest.raises(DataError, match=r"slices and tiles of a file, .*--group '_y\(\\d\+\)' for rows of tiles"):
        discover(tmp_path, options)
    found = discover(tmp_path, options, Splitting(group=r"_y(\d+)"))
    assert {pair.group for pair in found.pairs} == {"0", "32", "64"}


@FEW
@given(data=st.data(), ending=st.sampled_from(sorted(WRITERS)))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_changed_byte_is_read_or_refused(data: st.DataObject, ending: str, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir(exist_ok=True)
    kept = tmp_path / f"kept.{ending}"
    if not kept.exists():
        WRITERS[ending](kept)
    content = bytearray(kept.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 1500) - 1))] = data.draw(st.integers(0, 255))
    image, mask = tmp_path / f"images/a.{ending}", tmp_path / f"masks/a.{ending}"
    for path, written in ((image, bytes(content)), (mask, kept.read_bytes())):
        path.unlink(missing_ok=True)  # the old one may still be mapped
        path.write_bytes(written)
    (tmp_path / "list.csv").write_text(f"image,label,split\nimages/a.{ending},masks/a.{ending},test\n")
    with suppress(DataError, Unusable):
        open_all(tmp_path / "list.csv")
    with suppress(DataError, Unusable):
        open_all(tmp_path / "list.csv", ReadOptions(parts=PartOptions(slices="all", tile=16)))


def test_the_helpers_of_this_file_write_good_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(truth(0)).save(buffer, format="PNG")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for ending, write in WRITERS.items():
        write(tmp_path / f"images/{ending}.{ending}")
        mask = {"tif": np.ones((9, 11), np.uint8), "dcm": labels(0)[1]}.get(ending, labels(0))
        np.save(tmp_path / f"masks/{ending}.npy", mask)
    (tmp_path / "masks/nii.npy").unlink()
    write_nifti(tmp_path / "masks/nii.nii", labels(0))
    open_all(tmp_path)
