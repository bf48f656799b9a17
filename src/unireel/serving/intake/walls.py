"""Walls around a decoding process, put up by itself before it sees a stranger's bytes; none can be taken down again.

Limits of resources hold on every Unix. The other two walls need Linux and are put up where the kernel lets us: a
process without a network, and one that can open nothing but the program itself. Nothing relies on them alone: the media
layer opens only the file that is named (``protocol_whitelist``).
"""

import ctypes
import math
import os
import resource
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_PATH_BENEATH = 1
_LANDLOCK_READ = 1 << 2 | 1 << 3
"""Rights to read a file and to list a folder."""

_LANDLOCK_RIGHTS = {1: 13, 2: 14}
"""How many kinds of access to files each version of Landlock governs; 15 (with truncation) from the third on."""

_DESCRIPTORS = 32


def leave_network() -> bool:
    """Move into a network of our own that has no way out; whether the system allowed it."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


class _PathBeneath(ctypes.Structure):
    """``struct landlock_path_beneath_attr``."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def forbid_files(readable: Iterable[str] = ()) -> bool:
    """Give up making, writing and removing files, and opening any but those below ``readable`` (Landlock).

    Descriptors that are open stay usable, and so do files without a name (memfd) through ``/dev/fd``.

    Args:
        readable: folders (those that do not exist are skipped); modules that are loaded late are read from there.

    Returns:
        Whether the system allowed it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return False
    governed = ctypes.c_uint64((1 << _LANDLOCK_RIGHTS.get(version, 15)) - 1)
    size = ctypes.c_size_t(ctypes.sizeof(governed))
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(governed), size, 0)
    if ruleset < 0:
        return False
    for folder in filter(os.path.isdir, readable):
        rule = _PathBeneath(_LANDLOCK_READ, os.open(folder, os.O_PATH))
        libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.byref(rule), 0)
        os.close(rule.folder)
    held = libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return held


def limit_resources(memory: int, seconds: float) -> None:
    """Bound what this process may still take; before :func:`forbid_files`, as the kernel is asked for what it has.

    Args:
        memory: bytes of address space beyond what it has now (Linux; elsewhere there is no such bound).
        seconds: processor time from now on; at the end of it the kernel kills the process.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    bounds = {
        resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime + seconds),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
    }
    if sys.platform == "linux":
        bounds[resource.RLIMIT_AS] = _address_space() + memory
        # One processor, so that no decoder starts threads, whose stacks count as memory.
        os.sched_setaffinity(0, {secrets.choice(sorted(os.sched_getaffinity(0)))})
    for what, most in bounds.items():
        resource.setrlimit(what, (most, most))


def _address_space() -> int:
    """Bytes of address space that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
