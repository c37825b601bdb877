"""What `infosam cluster submit` sends along."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

import cluster.upload
from cluster.upload import collect, copy_to
from infosam.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's repository with what must stay."""
    names = [
        "sweep.yaml",
        "code/loss.py",
        ".git/objects/ab",
        "data/images/1.png",
        "model.pth",
        "code/__pycache__/x.pyc",
        "infosam-runs/sweeps/a",
        "checkpoints/last.safetensors",
        "code/cache.npz",
        ".env",
        "deep/.venv/bin/python",
        ".gitignore",
        "code/.rayignore",
    ]
    root = tmp_path / "work"
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    (root / "link").symlink_to(tmp_path)
    return root


def test_data_checkpoints_history_and_secrets_stay(folder: Path, tmp_path: Path) -> None:
    upload = collect(folder)
    assert {str(path) for path in upload.files} == {"sweep.yaml", "code/loss.py"}
    assert upload.size == 20
    left = {str(path) for path in upload.left_out}
    assert {".git", "data", "model.pth", "infosam-runs", "checkpoints", ".env", "link", ".gitignore"} <= left
    target = tmp_path / "sent"
    copy_to(upload, target)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        "code/loss.py",
        "sweep.yaml",
    ]


def test_ray_packs_all_that_is_sent(folder: Path, tmp_path: Path) -> None:
    """Rules for git and Ray in the folder itself decide nothing."""
    (folder / ".gitignore").write_text("loss.py\n")
    (folder / "code" / ".rayignore").write_text("*\n")
    target = tmp_path / "sent"
    copy_to(collect(folder), target)
    package = tmp_path / "package.zip"
    create_package(str(target), package, include_gitignore=True)
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
    assert names == {"sweep.yaml", "code/loss.py"}


def test_too_much_is_refused_before_anything_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.upload.LIMIT_BYTES == 100 * 2**20  # Ray's own
    (folder / "code" / "table.bin").write_bytes(b"x" * 5000)
    monkeypatch.setattr(cluster.upload, "LIMIT_BYTES", 4000)
    with pytest.raises(UserError, match=r"the largest are code/table\.bin"):
        collect(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        collect(tmp_path / "none")
