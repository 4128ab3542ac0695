"""Work done in a forked child: whatever it does - hang, crash, eat memory - its parent learns and goes on."""

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What became of the work: its value, or the word that says why there is none; and the seconds it took."""

    value: Any
    died: str
    seconds: float


def in_a_child(work: Callable[[], Any], limit: float = 20.0, memory: int = 8 << 30) -> Outcome:
    """The JSON value that ``work`` returns, from a process of its own with bounded time and memory."""
    read, write = os.pipe()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(read)
        _work(work, write, memory)
    os.close(write)
    text, died = b"", ""
    while not died:
        left = limit - (time.perf_counter() - began)
        if left <= 0 or not select.select([read], [], [], left)[0]:
            died = f"no end within {limit:g} s"
            os.kill(child, signal.SIGKILL)
        else:
            part = os.read(read, 1 << 16)
            if not part:
                break
            text += part
    os.close(read)
    status = os.waitpid(child, 0)[1]
    if not died and not text:
        died = f"died with status {os.waitstatus_to_exitcode(status)}"
    return Outcome(json.loads(text) if text and not died else None, died, time.perf_counter() - began)


def _work(work: Callable[[], Any], write: int, memory: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.write(write, json.dumps(work()).encode())
    finally:
        os._exit(0)
