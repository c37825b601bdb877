"""How pictures are shown, prompts made and masks scored: `strict`, or `official` with the quirks of the released code.

Every difference between the two is one switch. `docs/protocols.md` lists all quirks of the released code, also those
that are no switch here because they concern training, or would crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from infosam.errors import ConfigError
from infosam.strict import Strict

Prompt = Literal["box", "points", "none"]
PROMPT_KINDS: tuple[Prompt, ...] = get_args(Prompt)
MAX_JITTER = 0.5


class ProtocolConfig(Strict):
    """One way to evaluate; the defaults are `strict`."""

    name: str = "strict"
    """Stands beside every number."""

    channels: Literal["rgb", "bgr"] = "rgb"
    """Order in which the encoder sees the colours. Released: `bgr`, as OpenCV reads files, with mean and deviation
    still in the order red, green, blue; its zero-shot numbers are so too."""
    padding: Literal["normalised", "raw"] = "normalised"
    """What is 0 on padding. SAM pads after normalising. Released: `raw`, before it, so padding is about -2."""
    mask_resize: Literal["cover", "bilinear"] = "cover"
    """How a mask comes to the canvas. `cover`: foreground where it covers half of a pixel, and no mask vanishes.
    Released: `bilinear` with antialiasing on 0 and 1 as bytes, rounded; thin masks may vanish."""

    prompts: tuple[Prompt, ...] = Field(default=("box", "none"), min_length=1)
    """Prompts that are scored. Released: one box, except for roads: `points`."""
    boxes_from: Literal["original", "canvas"] = "original"
    """Mask the box is drawn around, in both cases one box around all foreground. Released: the mask on the canvas."""
    box_jitter: float = Field(default=0.0, ge=0, le=MAX_JITTER)
    """Largest random shift of each side of the box, as a share of the box's size, inside the frame."""
    box_shift_px: int = Field(default=0, ge=0, le=64)
    """Largest random shift m of the whole box on the canvas, drawn from -m to m - 1 per axis. Released: 5, or half of
    the box's shorter side where that is less, also at evaluation although the paper says exact boxes. The box may leave
    the canvas to the right and below. Boxes at most 2 px thick crash the released code; here they are not shifted."""
    empty_box: Literal["frame", "origin"] = "frame"
    """Box of an image without object. Released: `origin`, the corner 0, 0, 0, 0."""
    points_inside: int = Field(default=2, ge=1, le=32)
    """Points on the object under the prompt `points`; the released code tests roads with 2."""
    points_outside: int = Field(default=3, ge=0, le=32)
    """Points beside the object; the released code tests roads with 3."""
    points_on_padding: bool = False
    """Whether points beside the object may lie on padding. Released: they may."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Of shifts and points. Chance comes from (seed, image), so models are compared under equal prompts."""

    thresholds: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    """Cuts through the logits at original size; scores of masks are averaged over them. Released: 0.1, 0.3, 0.5, 0.7
    and 0.9, meant for probabilities but applied to logits (probability 0.525 to 0.711): steep logits are favoured."""
    map_from: Literal["sigmoid", "clipped_logits"] = "sigmoid"
    """Map in [0, 1] for S-measure, E-measure, weighted F and MAE. Released: logits clipped to [0, 1], no sigmoid."""
    weighted_f_beta: float = Field(default=1.0, gt=0, le=10)
    """Weight of precision in weighted F. Saliency toolboxes: 1. Released: 0.3."""
    toolbox_empty: bool = False
    """For truths without object, count as the saliency toolboxes do: weighted F 0 whatever is found, and a map of
    zeros passes for all foreground in the adaptive E-measure. Released: so."""

    @field_validator("prompts")
    @classmethod
    def _no_prompt_twice(cls, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
        if len(set(prompts)) < len(prompts):
            raise ValueError(f"prompts names one twice: {', '.join(prompts)}")
        return prompts

    @model_validator(mode="after")
    def _only_boxes_on_the_canvas_move(self) -> ProtocolConfig:
        if self.boxes_from == "original" and (self.box_jitter or self.box_shift_px):
            raise ValueError("box_jitter and box_shift_px need boxes_from = canvas: exact boxes do not move")
        return self

    def describe(self) -> str:
        """One line for under a table: the name, and every switch that differs from `strict`."""
        plain = ProtocolConfig()
        changed = [
            f"{field} {_shown(getattr(self, field))}"
            for field in type(self).model_fields
            if field != "name" and getattr(self, field) != getattr(plain, field)
        ]
        return f"{self.name} protocol" + (f": {'; '.join(changed)}" if changed else "")


STRICT = ProtocolConfig()
OFFICIAL = ProtocolConfig(
    name="official",
    channels="bgr",
    padding="raw",
    mask_resize="bilinear",
    prompts=("box",),
    boxes_from="canvas",
    box_shift_px=5,
    empty_box="origin",
    points_on_padding=True,
    thresholds=(0.1, 0.3, 0.5, 0.7, 0.9),
    map_from="clipped_logits",
    weighted_f_beta=0.3,
    toolbox_empty=True,
)
PROTOCOLS: Mapping[str, ProtocolConfig] = {protocol.name: protocol for protocol in (STRICT, OFFICIAL)}


def choose_protocol(name: str, *, prompts: Sequence[str] = (), jitter: float = 0.0, seed: int = 0) -> ProtocolConfig:
    """A preset, with other prompts than its own if any are named, and jittered boxes if asked for.

    Raises ConfigError."""
    if name not in PROTOCOLS:
        raise ConfigError(f"the protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    for prompt in prompts:
        if prompt not in PROMPT_KINDS:
            raise ConfigError(f"a prompt must be one of {', '.join(PROMPT_KINDS)}, got {prompt!r}")
    if jitter and name == OFFICIAL.name:
        raise ConfigError("the official protocol shifts boxes in its own way; use jitter with strict")
    if not 0 <= jitter <= MAX_JITTER:
        raise ConfigError(f"the jitter must be between 0 and {MAX_JITTER} of the box's size, got {jitter:g}")
    changes: dict[str, Any] = {"seed": seed}
    if prompts:
        changes["prompts"] = tuple(dict.fromkeys(prompts))
    if jitter:
        changes |= {"box_jitter": jitter, "boxes_from": "canvas"}
    return ProtocolConfig.model_validate(PROTOCOLS[name].model_dump() | changes)


def _shown(value: object) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, tuple) else str(value)
