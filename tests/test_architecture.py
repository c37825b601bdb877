"""The room plan as tests: which storey may import which, and habits the whole house keeps.

`infosam` <- `tune` <- `cluster`: the right one may import the left one, never back.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("infosam", "tune", "cluster")
ABOVE_INFOSAM = {"ray", "optuna", "mlflow", "tune", "cluster"}
RAY_INTERNALS_ROOM = Path("tune/ray_private.py")

MODEL_ROOMS = {f"infosam.{room}" for room in ("sam", "peft", "student", "training", "evaluation", "bundle", "predict")}
INNER_RULES = {
    # Mathematics is tensors in, tensors out; data can be used and tested without any model.
    "infosam/information.py": MODEL_ROOMS | {"infosam.data"},
    "infosam/relation.py": MODEL_ROOMS | {"infosam.data"},
    "infosam/losses.py": MODEL_ROOMS | {"infosam.data"},
    "infosam/metrics": MODEL_ROOMS | {"infosam.data"},
    "infosam/data": MODEL_ROOMS,
    "infosam/synthetic": MODEL_ROOMS,
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def modules(*places: str) -> list[Path]:
    """Python files below the given packages, folders or files, relative to the root."""
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.is_file()
    return [path.relative_to(ROOT) for path in found]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.with_suffix("").parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_roots(*places: str) -> dict[str, set[Path]]:
    """Top-level package -> the files below `places` that import it."""
    roots: dict[str, set[Path]] = {}
    for path in modules(*places):
        for name in imported(path):
            roots.setdefault(name.partition(".")[0], set()).add(path)
    return roots


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes on a plain name, else ''."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


# ----------------------------------------------------------------------------------------------------- storeys


def test_method_does_not_know_the_search() -> None:
    found = {root: files for root, files in imported_roots("infosam").items() if root in ABOVE_INFOSAM}
    assert not found


@pytest.mark.slow
def test_method_loads_without_the_search() -> None:
    """Every module of infosam in a fresh interpreter: nothing of the upper storeys arrives by a detour either."""
    program = """
import importlib, json, pkgutil, sys
import infosam
for module in pkgutil.walk_packages(infosam.__path__, "infosam."):
    importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    # From the root's folder `tune` and `cluster` could be imported, so their absence means nobody asked for them.
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert ABOVE_INFOSAM.isdisjoint(loaded)
    assert {"peft", "transformers"}.isdisjoint(loaded)  # seconds, for kinds that many runs do without


def test_search_does_not_know_the_cluster() -> None:
    assert "cluster" not in imported_roots("tune")


def test_ray_internals_are_used_in_one_room() -> None:
    offenders = set()
    for path in modules(*PACKAGES):
        names = set(imported(path))
        names |= {dotted(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
        if any(re.match(r"ray(\.\w+)*\._[a-z]", name) for name in names):
            offenders.add(path)
    assert offenders <= {RAY_INTERNALS_ROOM}


@pytest.mark.parametrize("room", INNER_RULES)
def test_rooms_keep_to_themselves(room: str) -> None:
    forbidden = INNER_RULES[room]
    for path in modules(room):
        for name in imported(path):
            assert not any(name == other or name.startswith(f"{other}.") for other in forbidden), f"{path}: {name}"


# ------------------------------------------------------------------------------------------------------ habits


@pytest.mark.parametrize("path", modules(*PACKAGES, "tests"), ids=str)
def test_files_and_functions_stay_short(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines < MAX_FILE_LINES, f"{path} has {lines} lines: split it where it has a second reason to change"
    long = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 >= MAX_FUNCTION_LINES
    }
    assert not long, f"{path}: functions of {MAX_FUNCTION_LINES} lines or more: {long}"


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=str)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"


def test_chance_is_an_argument() -> None:
    """Seeding a global generator changes the numbers of whoever shares the process, unless it is put back after."""
    seeders = {"torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "random.seed"}
    seeders |= {"numpy.random.seed", "np.random.seed"}
    for path in modules(*PACKAGES):
        forks = [
            node for node in ast.walk(tree(path)) if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node)
        ]
        put_back = {id(node) for fork in forks for node in ast.walk(fork)}
        offenders = [name for name, call in calls(path) if name in seeders and id(call) not in put_back]
        assert not offenders, f"{path}: {offenders}"


def test_importing_does_nothing() -> None:
    """No environment, logging or warnings set-up while a module is being imported."""
    effects = re.compile(
        r"os\.environ\.\w+|os\.putenv|logging\.(basicConfig|disable|captureWarnings)|warnings\.\w+|ray\.init"
    )
    for path in modules(*PACKAGES):
        for statement in tree(path).body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If):
                continue  # `if __name__ == "__main__"` and `if TYPE_CHECKING` are the only uses of If
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    assert not effects.fullmatch(dotted(node.func)), f"{path}:{node.lineno}"
                if isinstance(node, ast.Assign):
                    assert "os.environ" not in ast.unparse(node.targets[0]), f"{path}:{node.lineno}"


def test_untrusted_files_are_read_safely() -> None:
    refused = re.compile(r"(yaml\.(load|full_load|unsafe_load)|c?[pP]ickle\.loads?|eval|exec|os\.system)")
    for path in modules(*PACKAGES):
        for name, call in calls(path):
            where = f"{path}:{call.lineno}"
            assert not refused.fullmatch(name), f"{where}: {name}"
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert arguments.get("shell") != "True", f"{where}: shell=True"
            if name == "torch.load":
                assert arguments.get("weights_only") == "True", f"{where}: torch.load without weights_only=True"


def test_servers_listen_on_loopback() -> None:
    for path in modules(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.fullmatch(r"0\.0\.0\.0(:\d+)?|\[?::\]?", node.value), f"{path}:{node.lineno}"


# -------------------------------------------------------------------------------------------- what is published

TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".cfg", ".ini", ".sh", ""}
PUBLISHED = (*PACKAGES, "tests", "docs", "benchmarks", "scripts", ".ci", ".github")
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work)/(?!ray\b)[\w.-]+")
PACKAGE_INDEX = re.compile(r"https?://[^\s\"')]+/simple\b|(?:--?(?:extra-)?index-url|--find-links|--trusted-host)\b")


def published_files() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in PUBLISHED for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in top + below if path.suffix in TEXT and "__pycache__" not in path.parts]


def test_no_path_of_a_machine_and_no_package_index_is_published() -> None:
    for path in published_files():
        if path == Path(__file__):
            continue  # names what it looks for
        text = path.read_text(encoding="utf-8")
        for pattern in (MACHINE_PATH, PACKAGE_INDEX):
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"
