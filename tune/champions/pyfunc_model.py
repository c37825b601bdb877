"""The code of an MLflow model over an adapter bundle. MLflow copies this file beside the bundle ("models from code"),
so it imports nothing but libraries and `infosam`, and nothing of a registered version is a pickle.

In: one row per image, `image` the bytes of a picture file (PNG, JPEG, ...), and `x0, y0, x1, y1`, first and last column
and row of the object in pixels of that picture, NaN or left out where nothing is known, and `points`, JSON such as
[[x, y, 1], [x, y, 0]] with 1 on the object and 0 beside it, empty or left out where there are none. Out: `mask`, a PNG
of the picture's size with 255 on the object and 0 elsewhere, and `score`, the mean probability of the mask's own pixels
(0.5 to 1, or 0 for an empty mask), which says how sure the model is, not how right.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from infosam.errors import DataError
from infosam.mask_codes import png_of
from infosam.predict import Predictor, decode_image
from infosam.prompt_files import prompt_of_row


class SegmentationModel(PythonModel):
    """Masks by the adapter in the folder that the artifact `bundle` names."""

    def load_context(self, context: Any) -> None:
        """Reads the bundle. `model_config`: `checkpoint`, the file of the base weights for other bases than vit_nano,
        and `device`. Raises as `infosam.predict.Predictor`."""
        settings = context.model_config or {}
        checkpoint = settings.get("checkpoint")
        self._predictor = Predictor(
            Path(context.artifacts["bundle"]),
            checkpoint=Path(checkpoint) if checkpoint else None,
            device=settings.get("device") or "auto",
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Masks and scores in the order of the rows. Raises DataError naming the row."""
        rows = model_input.to_dict(orient="records")
        made = [self._predict_row(row, f"row {number}") for number, row in enumerate(rows)]
        return pd.DataFrame(made, columns=["mask", "score"])

    def _predict_row(self, row: dict[Any, Any], where: str) -> dict[str, Any]:
        prompt = prompt_of_row(row, where)
        try:
            logits = self._predictor.logits(decode_image(row["image"], "image"), prompt)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        mask = logits > 0
        probability = 1 / (1 + np.exp(-logits[mask].astype(np.float64)))
        return {"mask": png_of(mask), "score": float(probability.mean()) if mask.any() else 0.0}


set_model(SegmentationModel())
