"""Facts about this machine: usable cores, file systems. Reads /proc and /sys."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

# File systems on which SQLite's locks and WAL's shared memory are not reliable.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "glusterfs", "ceph", "lustre", "9p"}
    | {"fuse.s3fs", "fuse.gcsfuse", "fuse.blobfuse", "fuse.glusterfs", "afs", "beegfs", "gpfs"}
)


@dataclass(frozen=True)
class FileSystem:
    """Where a path lies.

    Args:
        kind: As in /proc/mounts, such as `ext4` or `nfs4`; empty when unknown.
        is_network: True when another machine serves it.
    """

    kind: str
    is_network: bool


def usable_cores() -> int:
    """Cores this process may use: its affinity, limited by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def _cpu_quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        quota_us = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
        period_us = int((folder / "cpu.cfs_period_us").read_text("ascii"))
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def file_system_of(path: Path, mounts: Path = Path("/proc/mounts")) -> FileSystem:
    """The file system of a path, or of its nearest existing parent."""
    path = path.expanduser().absolute()
    # os.path.exists is False for what may not be looked at; Path.exists raises.
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110
        path = path.parent
    real = path.resolve()
    best, kind = -1, ""
    try:
        lines = mounts.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return FileSystem("", False)
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return FileSystem(kind, kind in _NETWORK_FILE_SYSTEMS)
