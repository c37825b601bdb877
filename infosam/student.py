"""The model that learns: a copy of the frozen SAM with a PEFT method inside, and the relation module beside it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from infosam.config import RunConfig
from infosam.peft.inject import inject
from infosam.relation import RelationModule
from infosam.sam.weights import BaseSam


@dataclass(frozen=True)
class Student:
    """An adapted SAM, its relation module, and the names of the parameters of SAM that train."""

    sam: Sam
    relation: RelationModule
    trainable: list[str]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by what they belong to: "encoder", "decoder", "relation"."""
        parameters = dict(self.sam.named_parameters())
        chosen = [(name, parameters[name]) for name in self.trainable]
        return {
            "encoder": [parameter for name, parameter in chosen if name.startswith("image_encoder.")],
            "decoder": [parameter for name, parameter in chosen if name.startswith("mask_decoder.")],
            "relation": list(self.relation.parameters()),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; the relation module's under "relation."."""
        parameters = dict(self.sam.named_parameters())
        tensors: dict[str, Tensor] = {name: parameters[name].detach() for name in self.trainable}
        tensors.update({f"relation.{name}": tensor for name, tensor in self.relation.state_dict().items()})
        return tensors

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` gave. Raises ValueError unless the names are exactly the same."""
        own = self.tensors()
        if set(own) != set(tensors):
            odd = sorted(set(own) ^ set(tensors))
            raise ValueError(f"saved tensors do not fit this configuration; {len(odd)} differ, first: {odd[:3]}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])


def build_student(base: BaseSam, config: RunConfig) -> Student:
    """A fresh student of `base`, which stays untouched. New weights are drawn from `config.train.seed`."""
    sam = copy.deepcopy(base.sam)
    trainable = inject(sam, config.peft, seed=config.train.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed + 1)
        relation = RelationModule(base.spec.decoder_width)
    device = next(sam.parameters()).device
    return Student(sam=sam, relation=relation.to(device), trainable=trainable)
