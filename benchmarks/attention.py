"""SAM's attention with decomposed relative positions in six forms: seconds and error per size and precision.

    python benchmarks/attention.py [--device cpu|cuda] [--quick]

    package   segment_anything's own: scores, then both position terms added to them
    channels  positions as further channels of queries and keys, one product, softmax, one product
    again     the same, and the scores are computed again on the way back instead of kept
    fused     the same channels, torch's fused attention
    mask      both position terms as one additive mask of torch's fused attention
    flex      FlexAttention with the terms in its score function, compiled; GPU only: on a CPU it has no backward pass

Sizes are those of a block inside its windows and over the whole canvas. Forms take turns; the median counts. `step` is
forward and backward with gradients of the input, `look` forward without. Errors are the largest relative deviation of
output and input gradient from the package's in float32. Which form SAM runs by is chosen in `infosam.sam.attention`.
The last line is one JSON object of figures, one per size, precision, kind of pass and form.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from results_file import publish
from rich.console import Console
from rich.table import Table
from segment_anything.modeling.image_encoder import Attention, add_decomposed_rel_pos, get_rel_pos
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from infosam.sam import attention as ours

SEED = 0
Form = Callable[[Attention, Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    """Input (batch, side, side, heads * channels) of one attention."""

    batch: int
    side: int
    heads: int
    channels: int


SIZES: Mapping[str, Size] = {
    "vit_nano window": Size(batch=36, side=8, heads=4, channels=32),
    "vit_nano global": Size(batch=4, side=24, heads=4, channels=32),
    "vit_b 512 window": Size(batch=18, side=14, heads=12, channels=64),
    "vit_b 512 global": Size(batch=2, side=32, heads=12, channels=64),
}
LARGE: Mapping[str, Size] = {
    "vit_b 1024 window": Size(batch=100, side=14, heads=12, channels=64),
    "vit_b 1024 global": Size(batch=4, side=64, heads=12, channels=64),
}
QUICK: Mapping[str, Size] = {"small": Size(batch=2, side=4, heads=2, channels=8)}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    sizes = QUICK if arguments.quick else SIZES | (LARGE if arguments.device == "cuda" else {})
    print(f"{arguments.device}, {arguments.threads} threads, {arguments.rounds} turns, seed {SEED}")
    figures: dict[str, float] = {}
    for name, size in sizes.items():
        for precision in ("float32", "bf16"):
            for learn in (True, False):
                found = compare(size, torch.device(arguments.device), precision, learn, arguments.rounds)
                show(f"{name}, {precision}, {'step' if learn else 'look'}", found)
                kind = f"{name}/{precision}/{'step' if learn else 'look'}"
                figures |= {f"{kind}/{form}/{what}": value for (form, what), value in found.items()}
    if arguments.out:
        publish(arguments.out, f"attention-{arguments.device}", figures, device=arguments.device)
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each form")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a tiny size and two turns, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 2
    return arguments


def compare(size: Size, device: torch.device, precision: str, learn: bool, rounds: int) -> dict[tuple[str, str], float]:
    """Seconds and error of every form, by (form, what)."""
    torch.manual_seed(SEED)
    width = size.heads * size.channels
    block = Attention(width, size.heads, qkv_bias=True, use_rel_pos=True, input_size=(size.side, size.side)).to(device)
    torch.nn.init.normal_(block.rel_pos_h, std=0.3)
    torch.nn.init.normal_(block.rel_pos_w, std=0.3)
    block.requires_grad_(False)
    x = torch.randn(size.batch, size.side, size.side, width, device=device)
    forms = {name: form for name, form in FORMS.items() if name != "flex" or device.type == "cuda"}
    expected = run(FORMS["package"], block, x, "float32", learn)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    found: dict[tuple[str, str], float] = {}
    for name, form in forms.items():  # once before the clock starts
        given = run(form, block, x, precision, learn)
        found[name, "error"] = max(deviation(*pair) for pair in zip(given, expected, strict=True))
    for _ in range(rounds):
        for name, form in forms.items():
            began = time.perf_counter()
            run(form, block, x, precision, learn)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return found | {(name, "seconds"): statistics.median(values) for name, values in seconds.items()}


def run(form: Form, block: Attention, x: Tensor, precision: str, learn: bool) -> list[Tensor]:
    """Output, and with `learn` the gradient of the input for the sum of squares."""
    x = x.detach().clone().requires_grad_(learn)
    with torch.set_grad_enabled(learn), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = form(block, x)
    if not learn:
        return [output]
    output.float().square().mean().backward()
    assert x.grad is not None
    return [output.detach(), x.grad]


def deviation(given: Tensor, expected: Tensor) -> float:
    return float((given.float() - expected).abs().max() / expected.abs().max())


def show(title: str, found: Mapping[tuple[str, str], float]) -> None:
    table = Table("form", title=title, title_justify="left")
    for heading in ("ms", "of package", "error"):
        table.add_column(heading, justify="right")
    for form in dict.fromkeys(form for form, _ in found):
        taken = found[form, "seconds"]
        row = (f"{taken * 1e3:.2f}", f"{taken / found['package', 'seconds']:.2f}", f"{found[form, 'error']:.1e}")
        table.add_row(form, *row)
    Console().print(table)


def _split(block: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values (B, heads, tokens, channels)."""
    batch, height, width, _ = x.shape
    q, k, v = block.qkv(x).reshape(batch, height * width, 3, block.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _joined(block: Attention, mixed: Tensor, x: Tensor) -> Tensor:
    return block.proj(mixed.transpose(1, 2).reshape(*x.shape[:3], -1))


def _terms(block: Attention, q: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Position terms of rows (B, heads, tokens, rows, 1) and of columns (B, heads, tokens, 1, columns)."""
    grid = q.unflatten(2, (side, side))
    rows = torch.einsum("bnhwc,hkc->bnhwk", grid, get_rel_pos(side, side, block.rel_pos_h).to(q.dtype))
    columns = torch.einsum("bnhwc,wkc->bnhwk", grid, get_rel_pos(side, side, block.rel_pos_w).to(q.dtype))
    return rows.flatten(2, 3)[..., :, None], columns.flatten(2, 3)[..., None, :]


def package(block: Attention, x: Tensor) -> Tensor:
    q, k, v = (part.flatten(0, 1) for part in _split(block, x))
    side = x.shape[1]
    scores = (q * block.scale) @ k.transpose(-2, -1)
    scores = add_decomposed_rel_pos(scores, q, block.rel_pos_h, block.rel_pos_w, (side, side), (side, side))
    return _joined(block, (scores.softmax(dim=-1) @ v).unflatten(0, (len(x), -1)), x)


def channels(block: Attention, x: Tensor) -> Tensor:
    q, k, v = _split(block, x)
    query, key = ours.with_positions(block, q, k, x.shape[1], x.shape[2])
    return _joined(block, ours.plain(query, key, v), x)


def again(block: Attention, x: Tensor) -> Tensor:
    q, k, v = _split(block, x)
    query, key = ours.with_positions(block, q, k, x.shape[1], x.shape[2])
    return _joined(block, ours.recomputed(query, key, v), x)


def fused(block: Attention, x: Tensor) -> Tensor:
    q, k, v = _split(block, x)
    query, key = ours.with_positions(block, q, k, x.shape[1], x.shape[2])
    return _joined(block, ours.fused(query, key, v), x)


def mask(block: Attention, x: Tensor) -> Tensor:
    q, k, v = _split(block, x)
    rows, columns = _terms(block, q, x.shape[1])
    return _joined(block, F.scaled_dot_product_attention(q, k, v, attn_mask=(rows + columns).flatten(-2)), x)


def flex(block: Attention, x: Tensor) -> Tensor:
    q, k, v = _split(block, x)
    side = x.shape[1]
    rows, columns = (term.squeeze(axis) for term, axis in zip(_terms(block, q, side), (-1, -2), strict=True))

    def score(value: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return value + rows[batch, head, query, key // side] + columns[batch, head, query, key % side]

    mixed = _compiled_flex(q, k, v, score_mod=score)
    assert isinstance(mixed, Tensor)
    return _joined(block, mixed, x)


_compiled_flex = torch.compile(flex_attention)
FORMS: Mapping[str, Form] = {form.__name__: form for form in (package, channels, again, fused, mask, flex)}


if __name__ == "__main__":
    main()
