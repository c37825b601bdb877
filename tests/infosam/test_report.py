"""What `infosam evaluate` prints and leaves in a folder, from scores made by hand."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from infosam.assessment import MODELS, Assessment, Example
from infosam.data.store import Sample
from infosam.errors import DataError
from infosam.metrics import METRICS
from infosam.protocols import OFFICIAL, STRICT, ProtocolConfig
from infosam.report import check_out, print_tables, render_page, score_rows, score_tables, write_report

EVIL = "<script>alert('x')</script>"


def assessment(protocol: ProtocolConfig = STRICT, images: int = 4) -> Assessment:
    """Scores rise from image to image; the adapter is better by 0.1 in every metric."""
    steps = np.linspace(0.2, 0.6, images)
    scores = {
        (model, prompt): {metric: steps + (0.1 if model == "adapter" else 0.0) for metric in METRICS}
        for model in MODELS
        for prompt in protocol.prompts
    }
    mask = np.zeros((30, 40), bool)
    mask[5:15, 8:20] = True
    sample = Sample(id=EVIL, image=np.full((30, 40, 3), 90, np.uint8), mask=mask)
    masks = {"adapter": mask, "zero_shot": ~mask}
    examples = [Example(sample, best, masks, {"adapter": 0.7, "zero_shot": 0.6}) for best in (True, False)]
    ids = [f"image {number}" for number in range(images)]
    return Assessment(
        protocol=protocol, split="test", card={"seed": 0, "domain": EVIL}, ids=ids, scores=scores, examples=examples
    )


class TestTables:
    def test_one_table_per_prompt_and_one_row_per_metric(self) -> None:
        tables = score_tables(assessment())
        assert [table.prompt for table in tables] == ["box", "none"]
        for table in tables:
            assert table.headings == ["metric", "adapter", "zero_shot", "gain", "box_filled", "inscribed_ellipse"]
            assert len(table.rows) == len(METRICS)
            assert all(len(row) == len(table.headings) for row in table.rows)

    def test_a_row_has_means_intervals_and_the_paired_gain(self) -> None:
        row = score_tables(assessment())[0].rows[0]
        assert row[0] == "Dice ↑"
        assert re.fullmatch(r"0\.5000 \[0\.\d{4}, 0\.\d{4}\]", row[1])
        assert row[3] == "+0.1000 [+0.1000, +0.1000]"  # the same on every image, however different the images
        assert row[4] == "0.4000"

    def test_one_image_has_no_interval(self) -> None:
        assert score_tables(assessment(images=1))[0].rows[0][1] == "0.3000"

    def test_errors_point_down(self) -> None:
        marks = {row[0].rpartition(" ")[::2] for row in score_tables(assessment())[0].rows}
        assert {title for title, arrow in marks if arrow == "↓"} == {"MAE", "BER"}

    def test_the_print_names_protocol_and_split(self) -> None:
        stream = io.StringIO()
        print_tables(assessment(OFFICIAL), Console(file=stream, width=200))
        for text in (
            "test split, prompt box, 4 images",
            "official protocol: channels bgr",
            "95% bootstrap",
            "[low, high]",
        ):
            assert text in stream.getvalue()


class TestParquet:
    def test_a_row_per_image_model_and_prompt(self, tmp_path: Path) -> None:
        done = assessment()
        scores, _ = write_report(done, tmp_path / "new" / "folder")
        table = pq.read_table(scores)
        assert table.column_names == ["id", "model", "prompt", "protocol", "split", *METRICS]
        assert table.num_rows == 4 * len(MODELS) * 2
        rows = [row for row in table.to_pylist() if (row["model"], row["prompt"]) == ("adapter", "none")]
        assert [row["id"] for row in rows] == done.ids
        assert [row["iou"] for row in rows] == done.scores["adapter", "none"]["iou"].tolist()
        assert {(row["protocol"], row["split"]) for row in rows} == {("strict", "test")}

    def test_the_file_holds_every_switch(self) -> None:
        metadata = score_rows(assessment(OFFICIAL)).schema.metadata
        assert ProtocolConfig.model_validate(json.loads(metadata[b"protocol"])) == OFFICIAL


class TestPage:
    def test_it_needs_no_other_file_and_shows_pictures(self) -> None:
        page = render_page(assessment())
        assert not re.search(r"""(src|href)=["'](?!data:image/jpeg;base64,)""", page)
        assert "http" not in page
        pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
        assert len(pictures) == 4  # best and worst, adapter and zero-shot
        with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
            assert picture.size == (40, 30)

    def test_text_from_data_is_escaped(self) -> None:
        page = render_page(assessment())
        assert EVIL not in page
        assert "&lt;script&gt;" in page

    def test_it_says_how_the_numbers_were_made(self) -> None:
        page = render_page(assessment(OFFICIAL))
        for text in ("official protocol", "95%", "4 images", "Best by Dice", "Worst by Dice", "prompt box"):
            assert text in page

    def test_without_examples_it_has_tables_only(self) -> None:
        done = assessment()
        page = render_page(Assessment(**{**vars(done), "examples": []}))
        assert "<img" not in page
        assert "<table>" in page


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"--out .*taken: cannot be made a folder"):
        check_out(tmp_path / "taken")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        write_report(assessment(), tmp_path / "out")
