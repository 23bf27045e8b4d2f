"""Serve the page, the engines' files and one folder of models on 127.0.0.1.

    python server.py PORT FOLDER

Standard library only. The policy that every page carries forbids fetches and WebSockets to anywhere
else; no policy can forbid a script to lead the visitor away.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
PAGE, RUNTIME = HERE / "page", HERE / "node_modules"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def policy() -> str:
    """Return the Content-Security-Policy: what the page may load, run and talk to."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script type=\"importmap\">(.*?)</script>", html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    inline = " ".join(f"'sha256-{each}'" for each in hashes)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'wasm-unsafe-eval' {inline}",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",  # fetch, WebSocket, sendBeacon and the like
            "worker-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'self' http://127.0.0.1:* http://localhost:*",  # JupyterLab
        ]
    )


class Handler(SimpleHTTPRequestHandler):
    """Answers GET for files below three folders; everything else is 404 or 501."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES
    roots: dict[str, Path] = {"/site/": Path(), "/runtime/": RUNTIME, "/": PAGE}

    def do_GET(self) -> None:
        """Send a file, or say that the server is up."""
        if self.path == "/health":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        """Return the file of a URL's path; one that does not exist where it would lie outside."""
        path = unquote(urlsplit(path).path)
        prefix = next(each for each in self.roots if path.startswith(each))
        root = self.roots[prefix].resolve()
        file = (root / (path.removeprefix(prefix) or "index.html")).resolve()
        return str(file if file.is_file() and file.is_relative_to(root) else root / "no such file")

    def end_headers(self) -> None:
        """Add the policy to every answer."""
        self.send_header("Content-Security-Policy", policy())
        self.send_header("Cache-Control", "no-store")  # what a new visitor loads is what we count
        super().end_headers()


if __name__ == "__main__":
    Handler.roots["/site/"] = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
