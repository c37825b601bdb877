"""Machines made of this one's namespaces: each has processes, a host name, /tmp/ray, /dev/shm, a loopback and an
address of its own; a bridge that has no way out joins them. They share this machine's files, as over NFS.

    with network() as net:
        head, worker = net.machine("head"), net.machine("worker")
        head.run("ray", "start", "--head", f"--node-ip-address={head.address}")

A machine ends with all its processes, whatever they are, when the block ends or this process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NEEDS = "needs namespaces: root, unshare, nsenter, setpriv and ip (util-linux, iproute2)"
"""Why a test is skipped where there can be no such machines."""
SUBNET = "10.77.0"
RAY_PORT = 6379
START_TRIES = 3
TOO_SLOW = "timed out during startup"
"""Ray gives a node half a minute to start, which a busy machine may not have."""
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_INIT = """
import os, signal, socket, subprocess, sys
outside = os.readlink("/proc/self")
socket.sethostname(sys.argv[1])
subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
os.makedirs("/tmp/ray", exist_ok=True)
for folder in ("/tmp/ray", "/dev/shm"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", folder], check=True)
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
print(outside, flush=True)
sys.stdin.read()
"""
"""The first process of a machine: adopts and reaps what others leave behind, and ends with whoever holds its input."""


class Missing(RuntimeError):
    """This user or system cannot make such machines."""


class Machine:
    """One of them; `process` is its first process as it is numbered here."""

    def __init__(self, name: str, address: str, process: int, hub: int, init: subprocess.Popen[str]) -> None:
        self.name, self.address, self.process = name, address, process
        self._hub, self._init = hub, init

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program there to its end. With `check`, raises AssertionError with its output if it fails."""
        done = subprocess.run(
            self._entering(command), env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Starts a program there; arguments and result of `subprocess.Popen`."""
        return subprocess.Popen(self._entering(command), env=environment, **options)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts, has the machine's network; files and processes stay those of here."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/proc/{self.process}/ns/net", "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def unplug(self) -> None:
        """Cuts its cable."""
        _on(self._hub, "link", "set", self.name, "down")

    def plug(self) -> None:
        """Joins it again."""
        _on(self._hub, "link", "set", self.name, "up")

    def kill(self) -> None:
        """As a power cut: all its processes end at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        self._init.wait()

    def _entering(self, command: tuple[str, ...]) -> list[str]:
        where = ["nsenter", "--target", str(self.process), "--net", "--uts", "--pid", "--mount", "--wd=."]
        # nsenter's child is in the machine, and must not outlive it when this process kills nsenter.
        return [*where, "--", "setpriv", "--pdeathsig", "KILL", "--", *command]


class Network:
    """Where machines are added."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._hub, _ = _namespace(stack, "hub")
        self._count = 0
        _on(self._hub, "link", "add", "bridge", "type", "bridge")
        _on(self._hub, "link", "set", "bridge", "up")

    def machine(self, name: str) -> Machine:
        """A new machine; names are short, as those of network interfaces."""
        self._count += 1
        address = f"{SUBNET}.{self._count}"
        process, init = _namespace(self._stack, name)
        _on(self._hub, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(process))
        _on(self._hub, "link", "set", name, "master", "bridge", "up")
        _on(process, "link", "set", "lo", "up")
        _on(process, "address", "add", f"{address}/24", "dev", "eth0")
        _on(process, "link", "set", "eth0", "up")
        _on(process, "route", "add", "default", "dev", "eth0")  # leads nowhere; Ray finds its own address by it
        return Machine(name, address, process, self._hub, init)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """An empty network. Raises Missing."""
    if os.getuid() != 0 or not all(shutil.which(name) for name in ("unshare", "nsenter", "setpriv", "ip")):
        raise Missing(NEEDS)
    with contextlib.ExitStack() as stack:
        yield Network(stack)


def _namespace(stack: contextlib.ExitStack, name: str) -> tuple[int, subprocess.Popen[str]]:
    """The first process of a new machine without cable, and what ends it."""
    command = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child"]
    init = subprocess.Popen(
        [*command, sys.executable, "-I", "-S", "-c", _INIT, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert init.stdout is not None
    told = init.stdout.readline().strip()
    if not told:
        raise Missing(f"{NEEDS}; {init.communicate()[1].strip()}")
    stack.callback(init.communicate)  # ends its input, and so the machine
    return int(told), init


def _on(process: int, *arguments: str) -> None:
    subprocess.run(["nsenter", "--target", str(process), "--net", "ip", *arguments], check=True, timeout=30)


def _enter(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _NEW_NETWORK):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def program(name: str) -> str:
    """Where a program of the system is, also those for root only. Raises Missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"needs {name} (make test-deps)")
    return str(Path(found).resolve())


def start_ray(machine: Machine, *options: str, head: Machine | None = None, environment: Mapping[str, str]) -> None:
    """A Ray node of one CPU that knows itself by the machine's address: a head, or one that joins `head`."""
    role = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
    if head is not None:
        role = [f"--address={head.address}:{RAY_PORT}"]
    memory = f"--object-store-memory={80 * 2**20}"
    common = ["ray", "start", f"--node-ip-address={machine.address}", memory, "--disable-usage-stats"]
    cpus = [] if any(option.startswith("--num-cpus") for option in options) else ["--num-cpus=1"]
    own = {name: text for name, text in environment.items() if name != "RAY_ADDRESS"}
    for left in reversed(range(START_TRIES)):
        started = machine.run(*common, *role, *cpus, *options, environment=own, timeout=240, check=False)
        if started.returncode == 0 or TOO_SLOW not in started.stderr or not left:
            break
        machine.run("ray", "stop", "--force", environment=own)  # only this machine's
    assert started.returncode == 0, started.stdout + started.stderr
