"""A small file server for the browser: reports, pictures and tables of snapshots and runs, and nothing else.

Run by ``make ui``: ``python -m flows.files ROOT FD``, with the descriptor of a socket that listens.
"""

import socket
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

SERVED_FOLDERS = frozenset({"datasets", "runs", "comparisons", "predictions"})
SERVED_SUFFIXES = frozenset({".html", ".json", ".csv", ".md", ".png", ".parquet"})


def is_served(path: str) -> bool:
    """Whether the URL path names a file that may be shown: of a snapshot or a run, and of a known kind."""
    parts = PurePosixPath(unquote(urlsplit(path).path)).parts[1:]
    hidden = any(part.startswith(".") or part.lower() == "ledger" for part in parts)
    return (
        bool(parts) and parts[0] in SERVED_FOLDERS and PurePosixPath(parts[-1]).suffix in SERVED_SUFFIXES and not hidden
    )


class Files(SimpleHTTPRequestHandler):
    """Serves what ``is_served`` names; the root answers with an empty page, so that others can see that it is up."""

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer_root()
        elif is_served(self.path):
            super().do_GET()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _answer_root(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"Darkroom's reports: the links in the Prefect UI lead to them.\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests of a browser on this machine are nobody's concern."""


def main() -> None:
    """Serve until ended."""
    root, listener = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    server = ThreadingHTTPServer(listener.getsockname(), partial(Files, directory=str(root)), bind_and_activate=False)
    server.socket = listener
    server.serve_forever()


if __name__ == "__main__":
    main()
