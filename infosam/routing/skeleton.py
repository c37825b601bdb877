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

MODULE_BYTES = 3072
"""What a module takes without its tensors: Python traces 2750 to 2900 bytes, whatever the kind of adapter."""

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
        of_the_base = {one.data_ptr() for one in shared.values()}
        self.sam = copy.deepcopy(base.sam, shared)
        self._trainable = inject(self.sam, config, seed=0)
        self.sam.requires_grad_(False).eval()
        self._parameters = {name: self.sam.get_parameter(name) for name in self._trainable}
        self.start = first_trained_block(self.sam, self._trainable)
        """First block of the encoder that differs from the base; None: the whole encoder is the base's."""
        self.lock = threading.Lock()
        self._device = next(base.sam.parameters()).device
        self._shapes = {name: one.shape for name, one in self._parameters.items()}
        self.undress()
        tensors = [*self.sam.parameters(), *self.sam.buffers()]
        own = sum(one.nbytes for one in tensors if one.data_ptr() not in of_the_base)
        self.nbytes = own + MODULE_BYTES * sum(1 for _ in self.sam.modules())
        """Memory that it takes undressed, about."""

    @torch.no_grad()
    def read(self, bundle: Bundle) -> Weights:
        """The weights of a bundle of this configuration, in tensors of their own.

        Raises BundleError if they do not fit."""
        for name, parameter in self._parameters.items():
            parameter.data = torch.empty(self._shapes[name], dtype=parameter.dtype, device=self._device)
        try:
            fill(self.sam, bundle, self._trainable)
            return {name: parameter.data for name, parameter in self._parameters.items()}
        finally:
            self.undress()

    def wear(self, weights: Weights) -> None:
        """From now on the SAM is that of these weights; nothing is copied."""
        for name, parameter in self._parameters.items():
            parameter.data = weights[name]

    def undress(self) -> None:
        """Holds no weights any more, so that those of a bundle that is let go take no memory."""
        for parameter in self._parameters.values():
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=self._device)
