"""Settings of every kind of PEFT, one model each: a setting that would have no effect cannot be written down."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from infosam.strict import Strict

DEFAULT_WIDTH = 32  # channels of a bottleneck of which neither width nor ratio is given
DEFAULT_RSLORA_ALPHA = 2.0  # scale 1 at the default rank, as LoRA's default is at every rank


def _each_once(targets: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(targets)) < len(targets):
        raise ValueError(f"each target may stand only once, got {', '.join(targets)}")
    return targets


Target = Literal["qkv", "proj", "mlp"]
Targets = Annotated[tuple[Target, ...], Field(min_length=1), AfterValidator(_each_once)]


class _InBlocks(Strict):
    first_block: int = Field(default=0, ge=0)
    """Encoder blocks below this one stay frozen."""


class _OnLinears(_InBlocks):
    targets: Targets = ("qkv",)
    """Adapted Linears of a block: `qkv`, the fused query-key-value projection; `proj`, the output projection of
    attention; `mlp`, both layers of the MLP."""


class _LowRank(_OnLinears):
    rank: int = Field(default=4, ge=1, le=256)
    """Width of the update; the official InfoSAM run uses 4."""
    alpha: float | None = Field(default=None, gt=0)
    """Numerator of the update's scale alpha / rank; default: equal to the rank, so the scale is 1."""

    @property
    def numerator(self) -> float:
        """alpha, or what stands for it."""
        return float(self.rank) if self.alpha is None else self.alpha


class LoraConfig(_LowRank):
    """Low-rank update of Linears of the image encoder (Hu et al. 2021), through peft."""

    kind: Literal["lora"] = "lora"


class DoraConfig(_LowRank):
    """LoRA on the direction of each row of a weight, beside a trained length (Liu et al. 2024), through peft."""

    kind: Literal["dora"] = "dora"


class RsLoraConfig(_LowRank):
    """LoRA with the rank-stabilised scale alpha / sqrt(rank) (Kalajdzievski 2023), through peft."""

    kind: Literal["rslora"] = "rslora"
    alpha: float | None = Field(default=None, gt=0)
    """Numerator of the update's scale alpha / sqrt(rank), which lets the rank grow without the update shrinking;
    default: 2, so the scale is 1 at rank 4."""

    @property
    def numerator(self) -> float:
        """alpha, or what stands for it."""
        return DEFAULT_RSLORA_ALPHA if self.alpha is None else self.alpha


class LohaConfig(_LowRank):
    """Update as the Hadamard product of two low-rank ones, of rank up to rank^2 (Hyeon-Woo et al. 2022), through
    peft."""

    kind: Literal["loha"] = "loha"


class Ia3Config(_OnLinears):
    """One trained factor per channel (Liu et al. 2022), through peft."""

    kind: Literal["ia3"] = "ia3"
    targets: Targets = ("qkv", "mlp")
    """Scaled channels: those that `qkv` gives out, those that `proj` gives out, the hidden ones of `mlp`. Default: as
    published, with the query in addition, since SAM's projection is fused."""


class ConvLoraConfig(_InBlocks):
    """LoRA on qkv with a mixture of convolutions at several scales inside (Zhong et al., ICLR 2024)."""

    kind: Literal["conv_lora"] = "conv_lora"
    rank: int = Field(default=4, ge=1, le=256)
    """Width of the update and of its convolutions; the InfoSAM paper's comparison uses 4."""
    alpha: float | None = Field(default=None, gt=0)
    """Numerator of the update's scale alpha / rank; default: equal to the rank, so the scale is 1."""
    experts: int = Field(default=8, ge=2, le=16)
    """Number of convolutions; number i works on features enlarged i times. One alone would leave nothing to choose."""
    balance: float = Field(default=0.01, ge=0, le=10)
    """Weight of the load-balancing loss, which keeps one expert from taking all images."""

    @property
    def scale(self) -> float:
        """Factor of the update."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class _Bottleneck(_InBlocks):
    width: int | None = Field(default=None, ge=1, le=2048)
    """Width of the bottleneck in channels; default: 32, unless `ratio` is given."""
    ratio: float | None = Field(default=None, gt=0, le=1)
    """Width of the bottleneck as a share of the encoder's width, in place of `width`; the paper uses 0.25."""
    zero_init: bool = True
    """Start from the pre-trained function; False is the released code's default initialisation."""
    train_norms: bool = True
    """Also train the LayerNorms of adapted blocks, as the released code does."""

    @model_validator(mode="after")
    def _one_width(self) -> _Bottleneck:
        if self.width is not None and self.ratio is not None:
            raise ValueError(f"width and ratio exclude each other, got width {self.width} and ratio {self.ratio:g}")
        return self

    def channels(self, encoder_width: int) -> int:
        """Width of the bottleneck in an encoder of this width, rounded down as in the released code, at least 1."""
        if self.ratio is not None:
            return max(1, int(self.ratio * encoder_width))
        return DEFAULT_WIDTH if self.width is None else self.width


class AdapterConfig(_Bottleneck):
    """Series bottleneck adapter of InfoSAM: after attention and after the MLP of a block, GELU, inner skip.

    The released code adapts vit_b from block 2."""

    kind: Literal["adapter"] = "adapter"


class ParallelConfig(_Bottleneck):
    """Bottleneck adapters beside attention and beside the MLP of a block (SU-SAM, Song et al. 2024)."""

    kind: Literal["parallel"] = "parallel"
    scale: float = Field(default=0.5, gt=0, le=10)
    """Factor of what the adapters add; the released code uses 0.5."""


class AdaptFormerConfig(_Bottleneck):
    """Bottleneck adapter beside the MLP of a block (Chen et al., NeurIPS 2022)."""

    kind: Literal["adaptformer"] = "adaptformer"
    scale: float = Field(default=0.5, gt=0, le=10)
    """Factor of what the adapter adds; the released InfoSAM code uses 0.5, the AdaptFormer paper 0.1."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Between the two layers: GELU in the released InfoSAM code, ReLU in the AdaptFormer paper."""


class BitFitConfig(_InBlocks):
    """Only the biases of the image encoder (Ben Zaken et al. 2022)."""

    kind: Literal["bitfit"] = "bitfit"


class NormConfig(_InBlocks):
    """Only the LayerNorms of the image encoder, those of its neck included."""

    kind: Literal["norm"] = "norm"


class FullConfig(_InBlocks):
    """The whole image encoder: no PEFT at all, the upper end of every comparison of sizes."""

    kind: Literal["full"] = "full"


class DecoderOnlyConfig(Strict):
    """No adapter in the encoder: only the mask decoder is trained. The baseline of every table."""

    kind: Literal["decoder"] = "decoder"


PeftConfig = Annotated[
    LoraConfig
    | DoraConfig
    | RsLoraConfig
    | LohaConfig
    | Ia3Config
    | ConvLoraConfig
    | AdapterConfig
    | ParallelConfig
    | AdaptFormerConfig
    | BitFitConfig
    | NormConfig
    | FullConfig
    | DecoderOnlyConfig,
    Field(discriminator="kind"),
]
