"""What happens, and in which order. Start with ``flows/pipeline.py``."""

import logging

from storage.errors import DarkroomError

# Prefect's PREFECT_LOGGING_EXTRA_LOGGERS gives these loggers its handlers, but not a level.
for _package in ("flows", "tasks", "storage"):
    logging.getLogger(_package).setLevel(logging.INFO)


def _say_it_in_a_sentence(record: logging.LogRecord) -> bool:
    """Our own errors say what is wrong and what to do: a traceback would only bury it. Others keep theirs."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, DarkroomError):
        record.msg, record.args, record.exc_info = f"{type(error).__name__}: {error}", (), None
    return True


for _runs in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_runs).addFilter(_say_it_in_a_sentence)
