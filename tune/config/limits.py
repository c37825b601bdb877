"""What a sweep may spend, and how large what it finds may be."""

from __future__ import annotations

from pydantic import Field

from infosam.config import Strict


class BudgetConfig(Strict):
    """When a search stops before `search.trials`. Looked at after every epoch and before every trial, so it is exceeded
    by one epoch per slot at most; trials under way end there, and what was found counts as the result. What `final`
    asks for comes on top. In a file over several domains each has all of it for itself, and the others go on when one
    has spent its own; all of them run at once, so hours pass for each."""

    hours: float | None = Field(default=None, gt=0)
    """Wall time from the first trial on, in hours; time between a driver's death and its resumption is not counted."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPUs reserved by trials times the hours they ran; a share of a GPU counts as that share."""
    target: float | None = Field(default=None, gt=0, le=1)
    """Validation Dice that is good enough: the first trial that reaches it ends the sweep."""


class ConstraintConfig(Strict):
    """Bounds on the adapter. They follow from the settings of a trial, so those that break one are never trained."""

    adapter_mb: float | None = Field(default=None, gt=0)
    """Largest size of what is trained in the image encoder, in MB (10^6 bytes) of float32."""
    trained_mb: float | None = Field(default=None, gt=0)
    """Largest size of all that is trained in SAM, the mask decoder included, in MB (10^6 bytes) of float32."""
