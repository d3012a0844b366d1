"""A pickle that writes a file as soon as anybody reads it."""

from __future__ import annotations

import pickle
from pathlib import Path


class Bomb:
    """Its pickle calls `open(path, "w")`, as one of an attacker would call `os.system`."""

    def __init__(self, folder: Path) -> None:
        self.mark = Path(folder) / "exploded"

    def __reduce__(self):
        return open, (str(self.mark), "w")

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self)

    @property
    def exploded(self) -> bool:
        return self.mark.exists()

    def must_lie(self) -> None:
        """Fail when somebody has read it; make sure that it works."""
        assert not self.exploded, "the payload was read, and ran its code"
        pickle.loads(self.pickled).close()
        assert self.exploded, "a payload that does nothing shows nothing"
        self.mark.unlink()
