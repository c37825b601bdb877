"""A command with subcommands that also works without one: `infosam sweep MY.yaml` beside `infosam sweep init`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"


class WithDefault(TyperGroup):
    """Takes its subcommand `run` for meant where the first argument names none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
