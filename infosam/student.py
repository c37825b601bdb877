"""The model that learns: a copy of the frozen SAM with a PEFT method inside, and the relation module beside it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor, nn

from infosam.config import RunConfig
from infosam.errors import ConfigError
from infosam.peft.inject import first_trained_block, inject
from infosam.relation import RelationModule
from infosam.sam.weights import BaseSam

REST_FILE = "rest.safetensors"  # of a bundle: everything that training changed and peft's own files do not hold
RELATION_PREFIX = "relation."


@dataclass(frozen=True)
class Student:
    """An adapted SAM, its relation module, and the names of the parameters of SAM that train."""

    sam: Sam
    relation: RelationModule
    trainable: list[str]

    @property
    def frozen_until(self) -> int | None:
        """The first block of the image encoder that training changes; None if it changes nothing in the encoder.

        Whatever comes before gives the same for an image in every step."""
        return first_trained_block(self.sam, self.trainable)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by what they belong to: "encoder", "decoder", "relation"."""
        parameters = dict(self.sam.named_parameters())
        chosen = [(name, parameters[name]) for name in self.trainable]
        return {
            "encoder": [parameter for name, parameter in chosen if name.startswith("image_encoder.")],
            "decoder": [parameter for name, parameter in chosen if name.startswith("mask_decoder.")],
            "relation": [parameter for parameter in self.relation.parameters() if parameter.requires_grad],
        }

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; the relation module's under "relation."."""
        parameters = dict(self.sam.named_parameters())
        tensors: dict[str, Tensor] = {name: parameters[name].detach() for name in self.trainable}
        tensors.update({f"{RELATION_PREFIX}{name}": tensor for name, tensor in self.relation.state_dict().items()})
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
    """A fresh student of `base`, which stays untouched. New weights are drawn from `config.train.seed`.

    Raises ConfigError if `config.info.relation_from` holds no relation module that fits."""
    sam = copy.deepcopy(base.sam)
    trainable = inject(sam, config.peft, seed=config.train.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed + 1)
        relation = RelationModule(base.spec.decoder_width)
    if config.info.relation_from is not None:
        _transfer(relation, config.info.relation_from)
    relation.requires_grad_(not config.info.relation_frozen)
    device = next(sam.parameters()).device
    return Student(sam=sam, relation=relation.to(device), trainable=trainable)


def _transfer(relation: RelationModule, bundle: Path) -> None:
    """Fills a relation module from an adapter bundle. Raises ConfigError."""
    file = bundle / REST_FILE
    try:
        own = {name: tensor for name, tensor in load_file(file).items() if name.startswith(RELATION_PREFIX)}
        relation.load_state_dict({name.removeprefix(RELATION_PREFIX): tensor for name, tensor in own.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"info.relation_from: no relation module for this model in {file}: {reason}") from error
