"""`infosam sweep init`: asks a few questions and writes the shipped sweep file, comments included, with the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
import yaml

from infosam.config import Size
from infosam.data.card import read_card
from infosam.errors import ConfigError, UserError
from tune.config import parse_sweep_configs
from tune.console import wide_console

SIZES = get_args(Size)
OWN_WEIGHTS = "vit_nano"  # the one size that needs no file

INIT_HELP = """Write a sweep file: every key with its meaning, and your answers to a few questions.

What an option answers is not asked; with --yes nothing is. Then: infosam sweep FILE"""

Answer = TypeVar("Answer")
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?P<space> *)(?P<value>[^#\n]*?)(?P<comment> *#.*)?$")


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("sweep.yaml"),
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder made by `infosam data import`; once for each domain.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"SAM to adapt: {', '.join(SIZES)}.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights file of vit_b, vit_l or vit_h.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each.")] = None,
    hours: Annotated[float | None, typer.Option(help="Longest time of the search; 0: no limit.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs for each trial; a fraction shares one, 0: none.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take the default of what is not given.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    if file.exists() and not overwrite:
        raise UserError(f"{file} is there already; name another file, or give --overwrite")

    def ask(question: str, given: Answer | None, default: Answer) -> Answer:
        if given is not None or yes:
            return default if given is None else given
        answer: Answer = typer.prompt(question, default=default)
        return answer

    question = "Folder of your images, made by `infosam data import` (several domains: commas between)"
    folders = data or [Path(part.strip()) for part in ask(question, None, "data/my-images").split(",")]
    domains = [read_card(folder).domain for folder in folders]
    size = ask(f"SAM to adapt ({', '.join(SIZES)})", model, OWN_WEIGHTS)
    weights = None if size == OWN_WEIGHTS else ask(f"Weights file of {size}", checkpoint, Path(f"sam_{size}.pth"))
    answers = {
        "run.model.name": size,
        "run.model.checkpoint": None if weights is None else str(weights),
        "run.train.epochs": ask("Epochs of each", epochs, 10),
        "search.trials": ask("Configurations to try", trials, 16),
        "budget.hours": ask("Hours the search may take (0: no limit)", hours, 0.0) or None,
        "resources.gpus_per_worker": ask("GPUs for each trial (0: train on the processor)", gpus, 0.0),
    }
    text = filled(*_over(folders, answers))
    parse_sweep_configs(yaml.safe_load(text), [], source=str(file))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error}") from error
    wide_console().print(
        f"{file}: over {', '.join(domains)} ({', '.join(map(str, folders))}). Look it over, then: infosam sweep {file}",
        soft_wrap=True,
        highlight=False,
    )


def _over(folders: Sequence[Path], answers: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The shipped file and the answers to fill in; over several domains `domains` stands in it instead of `data`."""
    if len(folders) == 1:
        return _shipped(), {"data": str(folders[0]), **answers}
    text = _shipped().replace("\ndata:", "\n# data:").replace("\n# domains:", "\ndomains:")
    return text, {"domains": [str(folder) for folder in folders], **answers}


def filled(text: str, answers: Mapping[str, Any]) -> str:
    """YAML `text` with other values at dotted paths; comments and the order of keys stay.

    Raises ConfigError for a path that has no line of its own."""
    parents: list[tuple[int, str]] = []
    lines, left = [], dict(answers)
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            lines.append(line)
            continue
        depth = len(match["indent"])
        parents = [(level, key) for level, key in parents if level < depth] + [(depth, match["key"])]
        path = ".".join(key for _, key in parents)
        lines.append(_with_value(line, match, left.pop(path)) if path in left else line)
    if left:
        raise ConfigError(f"no line for {', '.join(left)} in the shipped sweep file")
    return "\n".join(lines) + "\n"


def _with_value(line: str, match: re.Match[str], value: Any) -> str:
    """The line with another value, its comment in the same column if there is room."""
    written = str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("\n").removesuffix("\n...")
    start = f"{match['indent']}{match['key']}: {written}"
    if not match["comment"]:
        return start
    column = line.index("#")
    return f"{start.ljust(column - 1)} {line[column:]}"


def _shipped() -> str:
    return (files("tune") / "sweeps" / "default.yaml").read_text(encoding="utf-8")
