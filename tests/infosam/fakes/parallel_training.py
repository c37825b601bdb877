"""One process of a data-parallel run on gloo, started by a test: DATA OUT RANK WORLD MEETING_FILE CONFIG_JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from infosam.config import RunConfig
from infosam.errors import UserError
from infosam.training import load_materials, train


def main() -> None:
    data, out, rank, world, meeting, config_json = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(world))
    config = RunConfig.model_validate_json(config_json)
    materials = load_materials(config.model, Path(data), device="cpu", baselines=False)
    try:
        reports = [report.values for report in train(config, materials, checkpoint_dir=Path(out) / "checkpoints")]
        result: object = reports
    except UserError as error:
        result = f"{type(error).__name__}: {error}"
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
