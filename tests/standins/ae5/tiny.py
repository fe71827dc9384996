"""A project of a few lines, for tests that need something to upload."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Answers with what it was asked, as JSON; streams back what it gets; ends when told so.
SERVER = """\
import argparse, http.server, json, os

parser = argparse.ArgumentParser()
parser.add_argument("--anaconda-project-port", type=int)
options, others = parser.parse_known_args()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        told = {"path": self.path, "headers": dict(self.headers), "flags": others}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while size := int(self.rfile.readline(), 16):
            piece = self.rfile.read(size)
            self.rfile.readline()
            self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(piece), piece))
        self.rfile.readline()
        self.wfile.write(b"0\\r\\n\\r\\n")

    def do_DELETE(self):
        os._exit(7)


address = ("127.0.0.1", options.anaconda_project_port)
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""

PROJECT: Mapping[str, Any] = {
    "name": "tiny",
    "variables": {"WORD": {"default": "world"}},
    "commands": {
        "Server": {"unix": "exec python server.py", "supports_http_options": True},
        "Good": {"unix": "echo hello $WORD"},
        "Bad": {"unix": "echo something is wrong >&2; exit 3"},
        "Long": {"unix": "exec sleep 60"},
        "Secrets": {"unix": 'head "$TRACKING_SERVER_SECRETS_DIR"/*'},
    },
    "env_specs": {"default": {"packages": []}},
}


def make_archive(
    path: Path, project: Mapping[str, Any] = PROJECT, files: Mapping[str, str] | None = None
) -> Path:
    """Write the archive of a project; returns its path.

    Args:
        path: Ends in `.tar.gz`.
        project: What its `anaconda-project.yml` says.
        files: More files by name, beside `server.py`.
    """
    texts = {"anaconda-project.yml": yaml.safe_dump(dict(project), sort_keys=False)}
    texts |= {"server.py": SERVER, **(files or {})}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in texts.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"tiny/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
