"""The scoring behind the rule: a bundle, its rivals and the champion on the same validation images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tune.champions.rule import Evidence, PerImage

if TYPE_CHECKING:
    from infosam.protocols import Prompt


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The validation split of `data` under one prompt, strict protocol, each bundle shown pictures as it was trained.

    `checkpoint` names base weights, for other bases than vit_nano; a champion on another base brings its own."""

    data: Path
    prompt: Prompt
    device: str = "auto"
    checkpoint: Path | None = None

    def evidence(self, bundle: Path, *, reported: float | None = None) -> Evidence:
        """Of a challenger. Raises as `infosam.evaluation.evaluate_bundle`."""
        from infosam.evaluation import evaluate_bundle

        table = evaluate_bundle(bundle, self.data, "val", device=self.device, checkpoint=self.checkpoint)
        return Evidence(
            prompt=self.prompt,
            adapter=table.dice("adapter", self.prompt),
            zero_shot=table.dice("zero_shot", self.prompt),
            trivial=table.dice(table.best_trivial(self.prompt).model, self.prompt),
            reported=reported,
        )

    def rescore(self, bundle: Path) -> PerImage:
        """Dice of a champion on each image. Raises UserError where its base weights are not here."""
        from infosam.bundle import read_bundle
        from infosam.evaluation import adapter_dice
        from infosam.sam.weights import sha256_of

        wanted = read_bundle(bundle).card["base"].get("sha256")
        same_base = self.checkpoint is not None and sha256_of(self.checkpoint) == wanted
        checkpoint = self.checkpoint if same_base else None
        return adapter_dice(bundle, self.data, "val", self.prompt, device=self.device, checkpoint=checkpoint)
