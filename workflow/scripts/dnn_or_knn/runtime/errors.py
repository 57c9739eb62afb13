"""The errors that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One sentence for the user: what is wrong, where (key, file, value), what to do."""


class Interrupted(BaseException):
    """The job was asked to stop (SIGTERM, SIGINT) after saving its state; a retry resumes it.

    Like KeyboardInterrupt no `Exception`: it is raised wherever the program is, and libraries that catch every exception
    (torch.compile does, and calls it a failed compilation) must let it through.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word nearest to `word`, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"
