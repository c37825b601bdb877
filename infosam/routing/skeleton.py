"""One SAM per kind of adapter for any number of bundles: a swap points its trained parameters at a bundle's tensors."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infosam.bundle import Bundle, fill
from infosam.peft.config import PeftConfig
from infosam.peft.inject import first_trained_block, inject
from infosam.sam.weights import BaseSam

Weights = Mapping[str, Tensor]
"""What a bundle brings, by parameter, as `Skeleton.read` gave it. Never changed in place."""


class Skeleton:
    """A SAM with an adapter of one configuration inside. Every frozen tensor is the base's own, so it costs next to
    no memory. Hold `lock` from `wear` until the forward is done."""

    def __init__(self, base: BaseSam, config: PeftConfig) -> None:
        """Raises ConfigError for a first block the encoder does not have."""
        shared: dict[int, Tensor] = {
            id(own): nn.Parameter(own.data, requires_grad=False) for own in base.sam.parameters()
        }
        shared |= {id(own): own for own in base.sam.buffers()}
        self.sam = copy.deepcopy(base.sam, shared)
        self._trainable = inject(self.sam, config, seed=0)
        self.sam.requires_grad_(False).eval()
        self._parameters = {name: self.sam.get_parameter(name) for name in self._trainable}
        self.start = first_trained_block(self.sam, self._trainable)
        """First block of the encoder that differs from the base; None: the whole encoder is the base's."""
        self.lock = threading.Lock()

    @torch.no_grad()
    def read(self, bundle: Bundle) -> Weights:
        """The weights of a bundle of this configuration, in tensors of their own; the skeleton wears them then.

        Raises BundleError if they do not fit."""
        for parameter in self._parameters.values():
            parameter.data = torch.empty_like(parameter.data)
        fill(self.sam, bundle, self._trainable)
        return {name: parameter.data for name, parameter in self._parameters.items()}

    def wear(self, weights: Weights) -> None:
        """From now on the SAM is that of these weights; nothing is copied."""
        for name, parameter in self._parameters.items():
            parameter.data = weights[name]
