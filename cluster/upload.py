"""What `infosam cluster submit` sends along: the sweep's file and, where asked for, a folder without its ballast."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infosam.errors import UserError

LIMIT_BYTES = 100 * 2**20
"""Ray keeps an upload in the head's memory and refuses more."""
MIB = 2**20
LEFT_OUT_FOLDERS = (".git", ".hg", ".svn", ".venv", "venv", "__pycache__", ".*_cache", "*.egg-info", "node_modules",
                    "infosam-runs", "mlruns", "mlartifacts", "data", "datasets", "checkpoints")  # fmt: skip
# Ray would read the last two on the way, and leave out what they say.
LEFT_OUT_FILES = ("*.pt", "*.pth", "*.ckpt", "*.safetensors", "*.parquet", "*.npz", "*.npy", "*.db", "*.pyc", ".env",
                  "*.pem", "*.key", "auth_token", ".gitignore", ".rayignore")  # fmt: skip
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The files of a folder that are sent."""

    folder: Path
    files: Sequence[Path]  # relative to `folder`
    left_out: Sequence[Path]  # files and folders

    @property
    def size(self) -> int:
        """Bytes, before compression."""
        return sum(self.bytes_of(path) for path in self.files)

    def bytes_of(self, path: Path) -> int:
        """Of one file."""
        return (self.folder / path).stat().st_size


def collect(folder: Path) -> Upload:
    """What of a folder would be sent: no data, checkpoints, results, secrets or history; links are not followed.

    Raises UserError if that is more than Ray takes."""
    if not folder.is_dir():
        raise UserError(f"--with {folder}: no such folder")
    left_out: list[Path] = []
    upload = Upload(folder=folder, files=list(_walk(folder, left_out)), left_out=left_out)
    if upload.size >= LIMIT_BYTES:
        largest = sorted(upload.files, key=upload.bytes_of, reverse=True)[:SHOWN]
        named = ", ".join(f"{path} ({upload.bytes_of(path) / MIB:.0f} MiB)" for path in largest)
        raise UserError(
            f"--with {folder}: {upload.size / MIB:.0f} MiB to upload, Ray takes less than {LIMIT_BYTES // MIB}; the "
            f"largest are {named}: put them into the shared folder and name them by their path there"
        )
    return upload


def _walk(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        here = Path(root).relative_to(folder)
        for name in list(folders):
            if _matches(name, LEFT_OUT_FOLDERS) or (Path(root) / name).is_symlink():
                folders.remove(name)
                left_out.append(here / name)
        for name in names:
            if _matches(name, LEFT_OUT_FILES) or not (Path(root) / name).is_file() or (Path(root) / name).is_symlink():
                left_out.append(here / name)
            else:
                yield here / name


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def copy_to(upload: Upload, folder: Path) -> None:
    """Copies the files that are sent, so that Ray's own rules have nothing to decide."""
    for path in upload.files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(upload.folder / path, target)
