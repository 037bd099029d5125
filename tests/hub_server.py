"""A stand-in for the Hugging Face Hub on this machine: repositories in memory, as far as its library asks."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 39 + "1"


class _Handler(BaseHTTPRequestHandler):
    """`server.repositories`: {"ORG/NAME": {file: bytes}}."""

    def log_message(self, *_):
        """Silent."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            repository = "/".join(path.split("/")[2:4])
            if repository in self.server.repositories:
                return self._listed(repository, path)
        elif "/resolve/" in path:
            repository, _, rest = path.partition("/resolve/")
            file = rest.partition("/")[2]
            content = self.server.repositories.get(repository, {}).get(file)
            if content is not None:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})
            if repository in self.server.repositories:
                return self._answer(404, b"no entry", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return self._answer(404, b"no repository", {"X-Error-Code": "RepoNotFound"})

    def _listed(self, repository, path):
        files = self.server.repositories[repository]
        if "/tree/" in path:
            rows = [{"type": "file", "path": name, "size": len(c), "oid": "0"} for name, c in files.items()]
            return self._json(rows)
        return self._json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append((path, self.headers.get("Authorization", "")))
        if path == "api/repos/create":
            made = json.loads(body)
            name = "/".join(filter(None, [made.get("organization"), made["name"]]))
            self.server.repositories.setdefault(name, {})
            return self._json({"url": f"{self.server.url}/{name}"})
        repository = "/".join(path.split("/")[2:4])
        if "/preupload/" in path:
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return self._json({"files": [mode | {"shouldIgnore": False} for mode in modes]})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.repositories[repository][line["value"]["path"]] = base64.b64decode(
                        line["value"]["content"]
                    )
            said = {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}",
            }
            return self._json(said | {"hookOutput": ""})
        return self._json({"errors": [], "warnings": []})

    def _json(self, content):
        return self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status, content, headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def running():
    """The server: `url`, `repositories` and `asked` (what was posted, and the authorization that came with it)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.repositories, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
