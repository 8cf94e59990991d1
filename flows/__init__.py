"""What happens, and in which order. Start with ``flows/pipeline.py``."""

import logging

# Prefect's PREFECT_LOGGING_EXTRA_LOGGERS gives these loggers its handlers, but not a level.
for _package in ("flows", "tasks", "storage"):
    logging.getLogger(_package).setLevel(logging.INFO)
