"""An admin port in this process, with the answers a test gives it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AdminServer:
    """Answers with `pages`, by path: a status and a body, which is JSON unless it is text."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, Any]] = {"/readyz": (200, "ready")}
        self.posted: list[tuple[str, Any]] = []
        self.address = ""


@contextmanager
def admin_port() -> Iterator[AdminServer]:
    """Serve until the block ends."""
    admin = AdminServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = admin.pages.get(self.path, (404, "No such page."))
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_POST(self) -> None:
            size_bytes = int(self.headers["Content-Length"])
            admin.posted.append((self.path, json.loads(self.rfile.read(size_bytes))))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    admin.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield admin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
