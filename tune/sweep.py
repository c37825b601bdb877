"""The same sweep as one file, for `ray submit`: it needs nothing beside itself but the installed package.

    ray submit CLUSTER.yaml tune/sweep.py -- --config sweep.yaml data=/mnt/data/polyp search.trials=64
    ray job submit -- python tune/sweep.py --config s3://bucket/sweep.yaml
    ray submit CLUSTER.yaml tune/sweep.py -- --resume polyp
    python -m tune.sweep --config /mnt/shared/sweep.yaml --once polyp

CONFIG is a path or a URI (file, s3, gs, http, https) that the head node can read, `default` is the shipped file.
Settings are key=value without spaces, because `ray submit` joins them unquoted. Schedulers that run a job again with
the same command use --once: it goes on with the sweep of that name if there is one. Exit codes: 0 done, 1 failed, 2
input refused, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sweep on the Ray cluster this machine belongs to; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run an InfoSAM sweep on this Ray cluster.")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--config", help="path or URI of the sweep's YAML, or `default`")
    task.add_argument("--resume", metavar="NAME", help="go on with the sweep of this name, in this folder or bucket")
    parser.add_argument(
        "--once", metavar="NAME", help="with --config: call the sweep NAME, or go on with it if it began already"
    )
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS") or "nearest",
        help="Ray cluster; default: RAY_ADDRESS, else the one this machine belongs to, else a new one",
    )
    parser.add_argument("--verbose", action=argparse.BooleanOptionalAction, default=False, help="Ray's own messages")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="changed settings, such as search.trials=64")
    options = parser.parse_intermixed_args(arguments)

    import typer

    from infosam.errors import UserError
    from tune.cli import resume, run, shipped
    from tune.config import load_sweep_configs
    from tune.home import find_home
    from tune.once import begun

    settings, name = options.settings, options.resume
    try:
        if name is not None and options.once is not None:
            raise UserError("--once starts or goes on by itself; it does not go with --resume")
        if name is None:
            named = [] if options.once is None else [f"name={options.once}"]
            with tempfile.TemporaryDirectory() as folder:
                path = shipped("default") if options.config == "default" else fetch(options.config, Path(folder))
                configs = load_sweep_configs(path, [*settings, *named])
            if options.once is not None and (earlier := begun(options.once, configs, find_home())):
                name = str(earlier)
                settings = [setting for setting in settings if setting.startswith("resources.")]
        if name is not None:
            resume(name, settings, verbose=options.verbose, address=options.address)
        else:
            run(configs, verbose=options.verbose, address=options.address)
    except UserError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    except typer.Exit as ending:
        return ending.exit_code
    return 0


def fetch(uri: str, folder: Path) -> Path:
    """A local file with the content of a path or URI. Raises UserError if it cannot be read."""
    from infosam.errors import UserError

    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme == "file":
        return Path("/" + rest.lstrip("/"))
    target = folder / "sweep.yaml"
    try:
        if scheme in ("http", "https"):
            from urllib.request import urlopen

            with urlopen(uri, timeout=60) as response:
                target.write_bytes(response.read())
        else:
            from pyarrow.fs import FileSystem

            system, path = FileSystem.from_uri(uri)
            with system.open_input_stream(path) as stream:
                target.write_bytes(stream.read())
    except (OSError, ValueError) as error:
        raise UserError(f"--config {uri}: cannot be read: {error}") from error
    return target


if __name__ == "__main__":
    # Python put this file's folder first on the path, where our modules could shadow installed ones.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main())
