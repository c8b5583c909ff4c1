"""What is said as one JSON object a line on standard error, for those who collect logs."""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

in_json = False
"""Whether the command that runs says all in JSON; errors that end it too."""


def event(name: str, **fields: Any) -> None:
    """One line: the time in UTC, the name of the event, and its fields."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": name, **fields}, default=str)
    print(line, file=sys.stderr, flush=True)
