"""The code of the MLflow model `infosam-auto`: all champions of a moment, and the picture decides which one is used.

MLflow copies this file beside the bundles ("models from code"), so it imports nothing but libraries and `infosam`, and
nothing of a registered version is a pickle.

In: as for the model of one domain, and optionally `domain`: a name, `auto` (as if left out) or `none` for plain SAM.
Out: `mask`, a PNG of the picture's size with 255 on the object and 0 elsewhere; `domain`, whose adapter made it, empty
for plain SAM; `distance` and `threshold`, of the nearest domain, NaN where nobody asked; `reason`, in words.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from infosam.data.card import AUTO, PLAIN
from infosam.errors import DataError, UnknownDomain
from infosam.mask_codes import png_of
from infosam.predict import decode_image
from infosam.prompt_files import prompt_of_row
from infosam.routing.pool import AdapterPool, Segmented

TOGETHER = 4
"""Pictures that go through the model at once."""


class AutomaticModel(PythonModel):
    """Masks by the adapters in the folders below the artifact `bundles`, each named after its domain."""

    def load_context(self, context: Any) -> None:
        """Reads the bundles. `model_config`: `checkpoint`, the file of the base weights for other bases than vit_nano,
        and `device`. Raises as `AdapterPool.from_folders`."""
        settings = context.model_config or {}
        checkpoint = settings.get("checkpoint")
        folders = sorted(path for path in Path(context.artifacts["bundles"]).iterdir() if path.is_dir())
        self._pool = AdapterPool.from_folders(
            {folder.name: folder for folder in folders},
            checkpoint=Path(checkpoint) if checkpoint else None,
            device=settings.get("device") or "auto",
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Masks in the order of the rows. Raises DataError or UnknownDomain naming the row."""
        rows = list(enumerate(model_input.to_dict(orient="records")))
        made = [
            one for start in range(0, len(rows), TOGETHER) for one in self._together(rows[start : start + TOGETHER])
        ]
        answers = [
            {
                "mask": png_of(one.mask),
                "domain": one.domain or "",
                "distance": math.nan if one.score is None else one.score,
                "threshold": math.nan if one.threshold is None else one.threshold,
                "reason": one.reason,
            }
            for one in made
        ]
        return pd.DataFrame(answers, columns=["mask", "domain", "distance", "threshold", "reason"])

    def _together(self, rows: list[tuple[int, dict[Any, Any]]]) -> list[Segmented]:
        """Several rows at once; one that is wrong is found by taking them one by one."""
        try:
            images = [decode_image(row["image"], "image") for _, row in rows]
            prompts = [prompt_of_row(row, "box") for _, row in rows]
            return self._pool.predict_batch(images, prompts, [_domain(row) for _, row in rows])
        except (DataError, UnknownDomain) as error:
            if len(rows) == 1:
                raise type(error)(f"row {rows[0][0]}: {error}") from error
            return [made for row in rows for made in self._together([row])]


def _domain(row: dict[Any, Any]) -> str | None:
    given = row.get("domain")
    if not isinstance(given, str) or not given.strip():
        return AUTO
    return None if given.strip() == PLAIN else given.strip()


set_model(AutomaticModel())
