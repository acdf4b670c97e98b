"""
A real systemd, with its journal, in namespaces of its own: on an overlay of this machine, with a network that has
nothing but loopback. Nothing that happens in there is left outside.

Needs root, and a kernel that makes namespaces and overlays.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT
from tests.support.processes import PATIENCE, wait_until

from .programs import LOGS, require

HIDDEN = ("/tmp", "/var/tmp")
"""Places that `PrivateTmp` hides from the service: it cannot run from a checkout there."""

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Where version 2 of control groups may be mounted."""

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$directory"
mkdir "$directory/upper" "$directory/work" "$directory/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$directory/root"
cd "$directory/root"
for place in $mounted; do mkdir -p ".$place"; mount --rbind "$place" ".$place"; done
for place in $closed; do chmod o+x ".$place"; done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
rm -rf etc/systemd/system etc/responder var/lib/responder var/lib/private/responder etc/fstab
mkdir -p etc/systemd/system/responder.service.d etc/systemd/system/responder.socket.d
mkdir -p etc/responder opt/responder/current/bin
echo uninitialized > etc/machine-id
ln -s /dev/null etc/systemd/system/systemd-networkd.service
ln -s /dev/null etc/systemd/system/systemd-networkd-wait-online.service
printf '[Journal]\nReadKMsg=no\n' > etc/systemd/journald.conf
cp "$units"/responder.* etc/systemd/system/
cat > etc/systemd/system/test.target <<END
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
END
printf '[Unit]\\nDefaultDependencies=no\\n' | tee etc/systemd/system/responder.socket.d/test.conf \\
    > etc/systemd/system/responder.service.d/test.conf
printf '[Service]\\nProtectHome=no\\n' >> etc/systemd/system/responder.service.d/test.conf
printf '#!/bin/sh\\nexec %s -m responder "$@"\\n' "$python" > opt/responder/current/bin/responder
chmod 755 opt/responder/current/bin/responder
mkdir old
pivot_root . old
cd /
umount --lazy old
exec env -i container=lxc PATH="$PATH" /lib/systemd/systemd --system --unit=test.target
"""
"""Makes the machine, and becomes its first process."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs systemd with our units, of which none is started. *init* is its first process."""

    init: int

    def path(self, place: str) -> Path:
        """A file of the machine as it is seen from outside."""
        return Path(f"/proc/{self.init}/root{place}")

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a command there, and leave it to the caller."""
        inside = ["nsenter", "--target", str(self.init), "--all", "--root", "--wd", *command]
        return subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there; it may fail."""
        with self.begin(*command) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def run(self, *command: str) -> str:
        """What a command prints there; it has to succeed."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def state(self, unit: str) -> str:
        """What systemd makes of a unit, such as "active"."""
        return self.attempt("systemctl", "is-active", unit).stdout.strip()

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def events(self) -> list[dict[str, Any]]:
        """What the service logged, each event with the priority that journald has for it."""
        lines = self.run("journalctl", "--unit", "responder", "--output", "json").splitlines()
        entries = [json.loads(line) for line in lines]
        return [
            json.loads(entry["MESSAGE"]) | {"priority": int(entry["PRIORITY"])}
            for entry in entries
            if str(entry["MESSAGE"]).startswith("{")
        ]

    def journal(self) -> str:
        """Everything, for a test that fails."""
        return self.attempt("journalctl", "--no-pager", "--lines", "60").stdout


@contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """A machine that has started, gone at the end. Skips the test where there can be none."""
    for program in ("/lib/systemd/systemd", "unshare", "nsenter"):
        require(program)
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine of its own")
    if any(ROOT.is_relative_to(place) for place in HIDDEN):
        pytest.skip(f"the unit keeps the service from reading what is in {', '.join(HIDDEN)}")
    cgroup = _cgroup()
    needed = [ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    log = directory / "boot.log"
    LOGS.append(log)
    namespaces = "unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child=KILL"
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "directory": str(directory / "machine"),
        "mounted": " ".join(str(place) for place in needed if not _is_on_root(place)),
        "closed": " ".join(str(place) for place in needed for place in place.parents if _is_closed(place)),
        "python": sys.executable,
        "units": str(ROOT / "config" / "systemd"),
        "cgroup": str(cgroup),
        "boot": BOOT,
    }
    (directory / "machine").mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f'echo $$ > "$cgroup/cgroup.procs" && exec {namespaces} bash -c "$boot"'],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _machine(process, log)
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: _remove(cgroup), "the control group of the machine is empty")


def _machine(process: subprocess.Popen[bytes], log: Path) -> Machine:
    """The machine that *process* boots, once systemd has started what there is to start."""
    wait_until(lambda: process.poll() is not None or _has_booted(process.pid), "systemd has started")
    if process.poll() is not None:
        pytest.skip(f"this machine does not let another one boot: {log.read_text(errors='replace').strip()[-200:]}")
    return Machine(_child(process.pid))


def _has_booted(parent: int) -> bool:
    init = _child(parent)
    return bool(init) and Machine(init).state("test.target") == "active"


def _child(parent: int) -> int:
    """The process id of the only child; 0 if there is none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0]) if children else 0


def _is_on_root(place: Path) -> bool:
    """Whether an overlay of the root file system has it."""
    return place.stat().st_dev == Path("/").stat().st_dev


def _is_closed(place: Path) -> bool:
    """Whether the account of the service could not get past it, and can in the overlay."""
    return _is_on_root(place) and not place.stat().st_mode & stat.S_IXOTH


def _cgroup() -> Path:
    """A control group for the machine."""
    for path in CGROUPS:
        if (path / "cgroup.procs").exists() and not (path / "tasks").exists():
            cgroup = path / f"responder-test-{os.getpid()}"
            cgroup.mkdir()
            return cgroup
    pytest.skip("this machine has no control groups of version 2")


def _remove(cgroup: Path) -> bool:
    """Remove a control group, from the inside out; False while there are processes in it."""
    try:
        for path in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        cgroup.rmdir()
    except OSError:
        return False
    return True
