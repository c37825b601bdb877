"""`infosam` as a process of its own that can be killed, with a training of the tests: driver.py MODULE ARGUMENTS..."""

from __future__ import annotations

import sys

from infosam.cli import main
from tune import runner

if __name__ == "__main__":
    for command in (runner.run_sweeps, runner.resume_sweeps):
        assert command.__kwdefaults__ is not None
        command.__kwdefaults__["training"] = sys.argv[1]
    main(sys.argv[2:])
