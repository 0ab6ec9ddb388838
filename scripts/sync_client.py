"""Writes the client without an event loop from the one with; a test finds a stale one.

    python scripts/sync_client.py

A method is so written once, in `sokovan/client/async_client.py`: this takes `async` and `await`
away.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "sokovan" / "client"
FILES = {
    "async_administration.py": "sync_administration.py",
    "async_arrays.py": "sync_arrays.py",
    "async_client.py": "sync_client.py",
    "async_connection.py": "sync_connection.py",
    "async_events.py": "sync_events.py",
}
CHANGES = {
    r"an event loop\.\n": "no event loop.\n",
    r"`sokovan\.AsyncClient`": "`sokovan.Client`",
    r"a program with an event loop": "a program",
    r"^`sync_\w+\.py`,? .*\n(.*\n)*?(?=\"\"\")": "",
    r"^import asyncio$": "import time",
    r"\basyncio\.sleep\b": "time.sleep",
    r"\basync (?=def|with|for)": "",
    r"\bawait ": "",
    r"\bAsync(?=Iterator|Iterable|Connection|Client|Administration|Arrays|Events)": "",
    r"\bhttpx\.AsyncClient\b": "httpx.Client",
    r"\basync_(?=connection|client|administration|arrays|events)": "sync_",
    r"\bAwaitable\[(\w+)\]": r"\1",
    r"\bAwaitable, ": "",
    r"\b__a(?=enter__|exit__)": "__",
    r"\baclose\(": "close(",
}
"""What is written instead, in this order."""
MENDED = ["check", "--select", "I,UP028", "--fix", "--unsafe-fixes", "--quiet"]
"""Imports in order; `yield from`, which only a generator without an event loop has."""


def written(name: str) -> str:
    """Return what is to stand in the file that is made from `name`."""
    text = (CLIENT / name).read_text()
    for old, new in CHANGES.items():
        text = re.sub(old, new, text, flags=re.MULTILINE)
    for command in (MENDED, ["format", "--quiet"]):
        path = str(CLIENT / FILES[name])  # says which settings are meant
        argv = [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"]
        text = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    for source, target in FILES.items():
        (CLIENT / target).write_text(written(source))
