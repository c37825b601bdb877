"""What this machine's processor can do."""

from __future__ import annotations

from typing import Any

import torch


def capabilities() -> dict[str, Any]:
    """By torch's names, such as `cpu_name` or `avx512_bf16`; empty with versions of torch that cannot say."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def bf16_instructions() -> list[str]:
    """Those with which it multiplies bfloat16 faster than float32."""
    found = capabilities()
    return [name for name in ("amx_bf16", "avx512_bf16") if found.get(name, False)]
