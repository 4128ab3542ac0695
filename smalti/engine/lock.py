"""One run at a time in a folder: a lock that the system itself takes back when its holder dies, however it dies."""

import contextlib
import errno
import functools
import os
import socket
import time
from pathlib import Path

from smalti.registry import UserError

LOCK = ".lock"
NOT_HERE = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
TAKEN = {errno.EAGAIN, errno.EACCES}  # a network's file system may say either

_held: set[int] = set()


class FolderLock:
    """An advisory lock on ``<folder>/.lock``, which says who holds it.

    A process that is forked from the holder closes its copy at once: workers that outlive it for a moment do not keep
    the folder. The file goes when the lock is given back; one that a crash left behind locks nothing.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._descriptor: int | None = None
        self._owner = 0

    def take(self) -> str:
        """Takes the lock; what to tell the user if there are no locks here, which is no reason to stop.

        Raises:
            UserError: naming the process that holds it.
            OSError: if the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:
            return self._unprotected("this system has no file locks")
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in TAKEN:
                    raise UserError(self._taken()) from error
                if error.errno in NOT_HERE:
                    return self._unprotected(error.strerror or str(error))
                raise
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # its holder gave it back, and the file with it, while we opened it
        self._keep(descriptor)
        return ""

    def release(self) -> None:
        """Gives the lock back, if this process holds it."""
        if self._descriptor is None or self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None

    def _keep(self, descriptor: int) -> None:
        _close_in_children()
        _held.add(descriptor)
        self._descriptor, self._owner = descriptor, os.getpid()
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a full disk: the lock holds, it only does not say whose it is
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {now}\n".encode())

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _taken(self) -> str:
        try:
            holder = self.path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            holder = ""
        who = holder or "another process, which has just started"
        return f"a run is going on in {self.folder} ({who}): let it end, stop it, or choose another folder"

    def _unprotected(self, reason: str) -> str:
        return f"{self.folder} cannot be locked ({reason}): see to it that no other run writes there"


@functools.cache
def _close_in_children() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()
