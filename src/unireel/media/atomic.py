"""Writing a file or a folder so that a reader sees the old one or the new one, never half of one."""

import contextlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from unireel.errors import UserError


def _temporary_beside(path: Path) -> Path:
    """A fresh hidden name in the same folder, with the same suffix (encoders choose their format by it)."""
    if "\0" in str(path):
        raise UserError(f"cannot write {str(path)!r}: not a file name")
    try:
        mode = os.stat(path.parent).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise _explain(path, error) from error
    if not stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    return path.parent / f".unireel-{uuid.uuid4().hex}{path.suffix}"


def _explain(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}")


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; on success it takes the place of ``path``, on failure it
    is removed.

    Raises:
        UserError: the folder does not exist, is not writable or is full, or ``path`` is a folder.
    """
    temporary = _temporary_beside(path)
    try:
        if stat.S_ISDIR(_mode(path)):
            raise UserError(f"cannot write {path}: it is a folder; name a file")
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Kind of what is at ``path`` as the system reports it; 0 if there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


def _check_replaceable(path: Path, ours: re.Pattern[str]) -> None:
    mode = _mode(path)
    if mode and not stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: it is a file; name a new folder")
    if mode and not all(ours.fullmatch(entry.name) for entry in path.iterdir()):
        raise UserError(f"cannot write {path}: the folder holds other files; name a new or an empty folder")


@contextlib.contextmanager
def replacing_folder(path: Path, ours: re.Pattern[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of ``path``, on failure it is
    removed.

    An existing folder is replaced only if all names in it match ``ours``, that is, if it is empty or this
    program wrote it: somebody else's files are never deleted.

    Raises:
        UserError: ``path`` is a file or a folder with other contents, or nothing can be written there.
    """
    temporary = _temporary_beside(path)
    retired: Path | None = None
    try:
        _check_replaceable(path, ours)
        temporary.mkdir()
        yield temporary
        if _mode(path):
            retired = _temporary_beside(path)
            os.rename(path, retired)
        os.rename(temporary, path)
    except OSError as error:
        if retired is not None and retired.exists() and not path.exists():
            os.rename(retired, path)
            retired = None
        raise _explain(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if retired is not None:
            shutil.rmtree(retired, ignore_errors=True)
