from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infosam.data.staging import put_in_place, staged

KILLED = """
import os, signal, sys
from pathlib import Path
from infosam.data.staging import staged
with staged(Path(sys.argv[1])) as folder:
    (folder / "big").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "new" / "set"
    assert subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False).returncode == -9
    assert len([*out.parent.iterdir()]) == 1
    others = {".set.partial", ".set.mine.partial", ".sets.01234567.partial"}
    for name in others:
        (out.parent / name).mkdir()
    with staged(out) as folder:
        (folder / "a").write_text("a")
        put_in_place(folder, out)
    assert {path.name for path in out.parent.iterdir()} == {"set", *others}


def test_a_folder_that_is_being_written_stays(tmp_path: Path) -> None:
    out = tmp_path / "set"
    with staged(out) as first:
        (first / "a").write_text("a")
        with staged(out) as second:
            assert first.is_dir()
            assert second.is_dir()
        assert (first / "a").is_file()
    assert [*tmp_path.iterdir()] == []
