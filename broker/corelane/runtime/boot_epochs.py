"""Boot epochs: numbers by which other nodes tell the lives of a core apart, the later the greater.

The wall clock's milliseconds, or one more than the last: a clock that went back while the node was
down must not make a new life look like a former one, so the last is kept on disk.
"""

import time
from pathlib import Path

from corelane.runtime.data_directory import write_file_atomically


class BootEpochs:
    """Those of one node's cores."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def next(self, core: int) -> int:
        """Return the epoch of a life that begins, durably greater than all before."""
        path = self._directory / f"boot-{core:02d}"
        try:
            last = int(path.read_text())
        except (FileNotFoundError, ValueError):
            last = 0
        epoch = max(time.time_ns() // 1_000_000, last + 1)
        write_file_atomically(path, f"{epoch}\n".encode())
        return epoch
