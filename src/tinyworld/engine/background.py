"""One piece of work at a time beside the training; what it fails of is told where the training asks."""

import threading
from collections.abc import Callable


class Background:
    """Runs work in a thread of its own. It must not use collectives: they would mix with those of the training."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Start `work` once the work before it is done. Raises what that one failed of."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised by wait(), in the main thread
            self._error = error

    @property
    def error(self) -> Exception | None:
        """What finished work failed of, until `wait` has raised it; never blocks."""
        return self._error

    def wait(self) -> None:
        """Until nothing runs. Raises what the work failed of."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
