"""SIGTERM and SIGINT as requests that a job answers between two steps."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

#: Seconds that the main thread gets to reach a moment at which it can save, after a stop request.
GRACE = 0.5


class StopRequests:
    """SIGTERM and SIGINT as requests: noted at once, answered when the work is at a step's end; made by `stop_requests`."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._taken = threading.Lock()

    def take(self) -> bool:
        """Return whether the caller is the one that answers the request (the first that asks)."""
        return self._taken.acquire(blocking=False)


@contextlib.contextmanager
def stop_requests(late: Callable[[str], NoReturn] | None = None, grace: float = GRACE) -> Iterator[StopRequests]:
    """Turn SIGTERM and SIGINT into requests for the duration, so that no exception tears a step apart.

    The main thread looks at `name` after each step and, if it is set and `take()` is true, saves and stops. When
    it does not within `grace` seconds, because one step takes longer, `late(name)` is called in a thread of its own: it
    must save what the last whole step left and end the process. A second SIGINT raises KeyboardInterrupt as usual.
    Outside the main thread this does nothing.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def note(number: int, _frame: object) -> None:
        if requests.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.name = requests.name or signal.Signals(number).name

    def watch() -> None:
        # The bytes come from the C-level handler, at once, also while the main thread is inside a long tensor operation.
        while received := reader.recv(1):
            if received[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            requests.name = requests.name or signal.Signals(received[0]).name
            if late is not None and not ended.wait(grace) and requests.take():
                late(requests.name)
            return

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ended = threading.Event()
    thread = threading.Thread(target=watch, name="stop-requests", daemon=True)
    former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    former_handle = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield requests
    finally:
        ended.set()
        signal.set_wakeup_fd(former_handle)
        for number, handler in former.items():
            signal.signal(number, handler)
        writer.close()
        thread.join()
        reader.close()
