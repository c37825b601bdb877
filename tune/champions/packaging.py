"""A bundle as an MLflow model: the folder that a version of the registry points to.

`artifacts/bundle` is the bundle as it is; `infosam` reads that alone. The rest is for MLflow's own readers: code, input
and output columns, an example, requirements."""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec

BUNDLE = "artifacts/bundle"
"""Where the bundle lies below a version's source."""
MODEL_CODE = Path(__file__).with_name("pyfunc_model.py")
AUTO_CODE = Path(__file__).with_name("auto_model.py")
EXAMPLE_PX = 96


def save_model(bundle: Path, card: Mapping[str, Any], out: Path) -> None:
    """Writes the MLflow model of a bundle with that card to the new folder `out`."""
    staged = out.with_name(out.name + "-bundle") / "bundle"  # MLflow keeps the folder's name
    shutil.copytree(bundle, staged)
    _save(
        out, MODEL_CODE, {"bundle": staged}, signature(),
        metadata={"domain": str(card.get("domain")), "base_sha256": str(card["base"]["sha256"])},
    )  # fmt: skip


def save_automatic(bundles: Path, out: Path) -> None:
    """Writes the MLflow model over the folder `bundles`, which holds one bundle per domain, to the new folder `out`."""
    domains = sorted(folder.name for folder in bundles.iterdir())
    _save(out, AUTO_CODE, {"bundles": bundles}, auto_signature(), metadata={"domains": ", ".join(domains)})


def _save(
    out: Path, code: Path, artifacts: Mapping[str, Path], columns: ModelSignature, *, metadata: Mapping[str, str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns about its own types while it is imported
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            out,
            python_model=code,
            artifacts={name: str(folder) for name, folder in artifacts.items()},
            model_config={"checkpoint": None, "device": "auto"},
            signature=columns,
            input_example=example(),
            pip_requirements=[f"{name}=={version(name)}" for name in ("infosam", "mlflow")],
            metadata=dict(metadata),
        )
        _forget_this_machine(out, code.name)


def _forget_this_machine(model: Path, code: str) -> None:
    """MLflow notes where code and bundles came from; all lie in the folder, and readers take them from there."""
    from mlflow.models import Model

    description = Model.load(model)
    flavor = description.flavors["python_function"]
    flavor["model_code_path"] = code
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    description.save(model / "MLmodel")


def signature() -> ModelSignature:
    """Columns that `pyfunc_model` takes and gives."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("binary", "image"), *_prompt_columns()]),
        outputs=Schema([ColSpec("binary", "mask"), ColSpec("double", "score")]),
    )


def auto_signature() -> ModelSignature:
    """Columns that `auto_model` takes and gives."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    made = [ColSpec("binary", "mask"), ColSpec("string", "domain")]
    chosen = [ColSpec("double", "distance"), ColSpec("double", "threshold"), ColSpec("string", "reason")]
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "image"), *_prompt_columns(), ColSpec("string", "domain", required=False)]),
        outputs=Schema([*made, *chosen]),
    )


def _prompt_columns() -> list[ColSpec]:
    from mlflow.types import ColSpec

    from infosam.prompt_files import BOX_COLUMNS, POINTS_COLUMN

    box = [ColSpec("double", name, required=False) for name in BOX_COLUMNS]
    return [*box, ColSpec("string", POINTS_COLUMN, required=False)]


def example() -> pd.DataFrame:
    """A made-up picture with the box around its objects."""
    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image

    from infosam.data.prompts import box_of
    from infosam.prompt_files import BOX_COLUMNS
    from infosam.synthetic.domains import spores

    picture, mask = spores(EXAMPLE_PX, np.random.default_rng(0))
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    box = box_of(torch.from_numpy(mask)).tolist()
    return pd.DataFrame([[stream.getvalue(), *box]], columns=["image", *BOX_COLUMNS])


def describe_card(card: Mapping[str, Any]) -> str:
    """A bundle's card in Markdown, for the page of its version."""
    base, config, metrics = card["base"], card["config"], card.get("metrics", {})
    lines = [
        f"Adapter of InfoSAM for the domain **{card.get('domain')}**: {config['peft']['kind']} on {base['name']} "
        f"at {base['image_px']} px.",
        "",
        "| validation Dice | adapter | zero-shot | best trivial |",
        "|---|---|---|---|",
    ]
    for prompt in ("box", "none"):
        scores = (metrics.get(model, {}).get(f"val/{prompt}/dice") for model in ("adapter", "zero_shot", "trivial"))
        lines.append(f"| {prompt} | " + " | ".join("-" if one is None else f"{one:.4f}" for one in scores) + " |")
    facts = {
        "Sweep and trial": f"{card.get('sweep_id', '-')}, {card.get('trial_id', '-')}",
        "Searched": ", ".join(f"{key}={value}" for key, value in card.get("searched", {}).items()) or "-",
        "Seed": card["seed"],
        "Data digest": card.get("data_digest", "-"),
        "Base weights SHA-256": base["sha256"],
        "Protocol": card.get("protocol", "-"),
    }
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items())]
    return "\n".join(lines)
