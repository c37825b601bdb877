"""Looks at every node of a Ray cluster from inside and prints the answers, a JSON object a line.

Run as `python -m cluster.examine QUESTION`, a program of its own for the reason of `cluster.probe`. What runs on the
nodes is sent to them as it stands here, so that a node without this package, or with another one, can answer too; for
that it returns plain dictionaries and imports inside.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


def examine_node(question: dict[str, Any]) -> dict[str, Any]:
    """One machine.

    Args:
        question: `storage`, a folder or None; `shared`, whether all nodes should see the same one, else each makes its
            own; `mark`, a file name that the head has written there; `weights`, a file or None; `token`, a text that
            makes our own file's name unique; `fetch`, addresses by the path they are fetched to; `card`, the file that
            each data set has; `mirror`, an address to write to or None.

    Returns versions by package (None: not installed), GPUs as nvidia-smi and torch see them, bytes of /dev/shm, errors
    of the folder and of addresses, digest or error of the weights, and last the clock in seconds since 1970."""
    import hashlib
    import os
    import platform
    import shutil
    import time
    from importlib.metadata import PackageNotFoundError, version

    def version_of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    answer: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in ("ray", "infosam", "torch")},
        "auth_mode": os.environ.get("RAY_AUTH_MODE", ""),
        "grows": os.environ.get("INFOSAM_CLUSTER_GROWS") == "1",
        "shm_bytes": shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else 0,
    }
    answer.update(examine_driver())
    if question["gpus"]:
        try:
            import torch

            answer["cuda"], answer["torch_gpus"] = torch.version.cuda, torch.cuda.device_count()
        except ImportError as error:
            answer["torch_error"] = str(error)
    answer.update(examine_folder(question))
    answer["bucket_errors"] = examine_buckets(question)
    comes = question["weights"] in question["fetch"] and not os.path.exists(question["weights"])
    if question["weights"] is not None and not comes:
        try:
            with open(question["weights"], "rb") as stream:
                answer["weights"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            answer["weights_error"] = str(error)
    answer["time"] = time.time()
    return answer


def examine_folder(question: dict[str, Any]) -> dict[str, Any]:
    """Whether this machine can write to the results folder, and sees there what the head has written."""
    import os
    from pathlib import Path

    if question["storage"] is None:
        return {}
    folder = Path(question["storage"])
    try:
        if not question["shared"]:
            folder.mkdir(parents=True, exist_ok=True)
        own = folder / f".infosam-doctor-{question['token']}-{os.getpid()}"
        own.write_text(question["token"])
        own.unlink()
        return {"sees_mark": (folder / question["mark"]).is_file()}
    except OSError as error:
        return {"storage_error": str(error)}


def examine_driver() -> dict[str, Any]:
    """What NVIDIA's program says of the driver, nothing without it."""
    import shutil
    import subprocess

    if not shutil.which("nvidia-smi"):
        return {}
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
    if told.returncode:
        return {"driver": None, "driver_error": (told.stdout + told.stderr).strip()}
    return {"driver": told.stdout.split("\n")[0].strip(), "driver_error": None}


def examine_buckets(question: dict[str, Any]) -> list[str]:
    """What this machine cannot do with the addresses of a sweep: read those of `fetch` that are not here already, and
    write to `mirror`, where a file of ours is made and removed again."""
    import os

    if not question["fetch"] and question["mirror"] is None:
        return []
    try:
        from pyarrow.fs import FileSystem
    except ImportError as error:
        return [f"{question['mirror'] or 'resources.fetch'}: {error}"]
    errors = []
    for path, address in question["fetch"].items():
        uri = address.partition("#")[0].rstrip("/")
        try:
            system, place = FileSystem.from_uri(uri)
            if not os.path.exists(path) and not any(
                found.is_file for found in system.get_file_info([place, f"{place}/{question['card']}"])
            ):
                errors.append(f"{uri}: no file or data set is there (resources.fetch)")
        except (OSError, ValueError) as error:  # ValueError: what Arrow calls an address it does not know
            errors.append(f"{uri} cannot be read: {error}")
    if question["mirror"] is not None:
        try:
            system, place = FileSystem.from_uri(question["mirror"])
            if system.type_name == "local":
                system.create_dir(place, recursive=True)
            own = f"{place}/.infosam-doctor-{question['token']}-{os.getpid()}"
            with system.open_output_stream(own) as stream:
                stream.write(b"doctor")
            system.delete_file(own)
        except (OSError, ValueError) as error:
            errors.append(f"{question['mirror']} cannot be written to: {error}")
    return errors


def write_mark(folder: str, mark: str) -> None:
    """A file that every node should see; makes the folder, as the first sweep would. One that cannot be written to is
    found by `examine_node`."""
    import contextlib
    from pathlib import Path

    with contextlib.suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / mark).write_text(mark)


def remove_mark(folder: str, mark: str) -> None:
    """Undoes `write_mark`."""
    import contextlib
    from pathlib import Path

    with contextlib.suppress(OSError):
        (Path(folder) / mark).unlink(missing_ok=True)


def examine_tracking(uri: str | None, experiment: str) -> dict[str, Any]:
    """The MLflow server as the driver of a sweep would see it, from the head: a run is made there and deleted again.

    Returns `uri` (that of the machine where none is given) and `tracking_error`, None if it could be written to."""
    import os

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None or not uri.startswith(("http://", "https://")):
        return {"uri": uri, "tracking_error": None}
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        return {"uri": uri, "tracking_error": str(error)}
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        made = found.experiment_id if found else client.create_experiment(experiment)
        run = client.create_run(made, tags={"mlflow.runName": "infosam cluster doctor"})
        client.set_terminated(run.info.run_id)
        client.delete_run(run.info.run_id)
    except MlflowException as error:
        return {"uri": uri, "tracking_error": str(error).strip().splitlines()[0]}
    return {"uri": uri, "tracking_error": None}


def examine(question: dict[str, Any]) -> None:
    """Prints a "nodes" line, then a "tracking" line and one "node" line per live node as it answers; or one "error"."""
    import time

    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        ray.init(address=question["address"], log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:  # what Ray raises for a bad address
        _print({"kind": "error", "message": str(error)})
        return
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = ("NodeID", "NodeManagerAddress", "Resources")
    _print({"kind": "nodes", "nodes": [{name: node[name] for name in names} for node in nodes]})
    head = next((node for node in nodes if "node:__internal_head__" in node["Resources"]), nodes[0])["NodeID"]

    def on(node_id: str, function: Any, *arguments: Any) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(function)
        return task.options(scheduling_strategy=strategy).remote(*arguments)

    if question["storage"] is not None:
        ray.get(on(head, write_mark, question["storage"], question["mark"]))
    pending = {on(head, examine_tracking, question["tracking"], question["experiment"]): ("tracking", head)}
    for node in nodes:
        asked = {**question, "gpus": node["Resources"].get("GPU", 0)}
        pending[on(node["NodeID"], examine_node, asked)] = ("node", node["NodeID"])
    while pending:
        for answer in ray.wait(list(pending), num_returns=1)[0]:
            kind, node_id = pending.pop(answer)
            try:
                _print({"kind": kind, "node_id": node_id, "received": time.time(), **ray.get(answer)})
            except ray.exceptions.RayError as error:  # the node left, or cannot start a worker
                _print({"kind": "silent", "node_id": node_id, "message": str(error).splitlines()[0]})
    if question["storage"] is not None:
        ray.get(on(head, remove_mark, question["storage"], question["mark"]))
    ray.shutdown()


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    examine(json.loads(sys.argv[1]))
