"""Log lines: JSON for a machine to read, words where a person sits before them; never a traceback, which holds ids."""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

from serving.guard import request_id


def write_lines(stream: TextIO) -> None:
    """Write what is logged to a stream, one line each."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Words() if stream.isatty() else Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("holdfast").setLevel(logging.INFO)


class Words(logging.Formatter):
    """Write a line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Write level and message."""
        return f"{record.levelname.lower()}: {_message(record)}"


class Lines(logging.Formatter):
    """Write a line for a machine."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a JSON object."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if name := request_id.get():
            line["request_id"] = name
        return json.dumps(line)


def _message(record: logging.LogRecord) -> str:
    error = record.exc_info[0] if record.exc_info else None
    return record.getMessage() + (f" ({error.__name__})" if error else "")
