"""A stand-in for a model hub on loopback: what huggingface_hub asks for a push and a pull.

Made after the requests that huggingface_hub 2.4 sends (`hf_api`, `_commit_api`, `lfs`,
`file_download`) with Xet turned off; no real hub was reached. Repositories live in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 1000  # bytes
TOKEN = "hf_token_of_the_owner"


@dataclass
class Repository:
    """Commits by id, newest last: name -> content."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def add(self, files: dict[str, bytes], message: str = "") -> str:
        text = repr((sorted(files), message, len(self.commits))).encode()
        commit = hashlib.sha1(text).hexdigest()
        self.commits[commit] = files
        return commit

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


class StandIn:
    """The hub: its repositories, what was asked of it, and what it does wrong on purpose.

    status: answer everything with it. cut: path -> bytes after which the answer breaks off, once.
    harm: path -> what is sent in place of its content.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.status: int | None = None
        self.cut: dict[str, int] = {}
        self.harm: dict[str, Callable[[bytes], bytes]] = {}
        self.refuse_uploads_from = 1 << 60
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)

    def fetched(self) -> list[str]:
        """Return the paths of files that were sent since the last time."""
        found = [one.partition("/resolve/")[2] for one in self.asked if one.startswith("GET ")]
        self.asked.clear()
        return [one.partition("/")[2] for one in found if one]


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status is not None:
            self._send(self.hub.status, {"error": "on purpose"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path.startswith("/lfs/"):
            self._store(path.rpartition("/")[2], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            self._of_repository(path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, entry: Any, **headers: str) -> None:
        self._write(status, json.dumps(entry).encode(), **headers)

    def _write(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _create(self, entry: dict[str, Any]) -> None:
        name = f"{entry['organization']}/{entry['name']}"
        if not self._known():
            self._send(401, {"error": "Invalid username or password."})
        elif name in self.hub.repositories:
            self._send(409, {"url": f"{self.hub.address}/{name}", "error": "exists"})
        else:
            made = Repository(private=entry.get("private", entry.get("visibility") == "private"))
            made.add({".gitattributes": b"*.onnx filter=lfs\n"}, "initial commit")
            self.hub.repositories[name] = made
            self._send(200, {"url": f"{self.hub.address}/{name}", "id": name, "name": name})

    def _batch(self, entry: dict[str, Any]) -> None:
        objects = []
        for one in entry["objects"]:
            href = f"{self.hub.address}/lfs/{one['oid']}"
            todo = {} if one["oid"] in self.hub.blobs else {"actions": {"upload": {"href": href}}}
            objects.append({**one, **todo})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid or len(body) >= self.hub.refuse_uploads_from:
            self._send(400, {"error": "not what was announced"})
        else:
            self.hub.blobs[oid] = body
            self._send(200, {})

    def _of_repository(self, path: str, body: bytes) -> None:
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._known()):
            self._send(404 if self._known() else 401, {}, X_Error_Code="RepoNotFound")
            return
        if found.gated and "resolve" in rest:
            self._send(403, {}, X_Error_Code="GatedRepo")
            return
        what, revision = (rest[0], rest[1]) if rest else ("revision", "main")
        commit = found.head if revision == "main" else revision
        if commit not in found.commits:
            self._send(404, {}, X_Error_Code="RevisionNotFound")
            return
        route = {"revision": self._info, "tree": self._tree, "resolve": self._resolve}
        route |= {"preupload": self._preupload, "commit": self._commit}
        if what not in route:  # such as xet-write-token
            self._send(404, {"error": "no such route"})
            return
        route[what](name, found, commit, "/".join(rest[2:]), body)

    def _info(self, name: str, found: Repository, commit: str, rest: str, body: bytes) -> None:
        siblings = [{"rfilename": one} for one in found.commits[commit]]
        entry = {"_id": "1", "id": name, "sha": commit, "private": found.private}
        self._send(200, {**entry, "siblings": siblings, "tags": []})

    def _tree(self, name: str, found: Repository, commit: str, rest: str, body: bytes) -> None:
        assert parse_qs(urlsplit(self.path).query)["recursive"] == ["true"]
        files = found.commits[commit]
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": "engines", "oid": "0" * 40, "size": 0}
        ]
        for path, content in files.items():
            entry = {"type": "file", "path": path, "oid": _git(content), "size": len(content)}
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
            entries.append({**entry, "lfs": lfs} if len(content) >= LFS_FROM else entry)
        self._send(200, entries)

    def _preupload(self, name: str, found: Repository, commit: str, rest: str, body: bytes) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["size"] >= LFS_FROM else "regular",
                "shouldIgnore": False,
                "oid": _git(found.commits[commit][one["path"]])
                if one["path"] in found.commits[commit]
                else None,
            }
            for one in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _commit(self, name: str, found: Repository, commit: str, rest: str, body: bytes) -> None:
        if not self._known():
            self._send(403, {"error": "read only"})
            return
        files = dict(found.commits[commit])
        head, *lines = (json.loads(line) for line in body.splitlines())
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                del files[value["path"]]
        made = found.add(files, head["value"]["summary"])
        address = f"{self.hub.address}/{name}/commit/{made}"
        self._send(200, {"success": True, "commitOid": made, "commitUrl": address})

    def _resolve(self, name: str, found: Repository, commit: str, rest: str, body: bytes) -> None:
        content = found.commits[commit].get(rest)
        if content is None:
            self._send(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{_git(content)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if len(content) >= LFS_FROM:
            headers |= {"X_Linked_ETag": f'"{digest}"', "X_Linked_Size": str(len(content))}
        sent = self.hub.harm.get(rest, lambda held: held)(content)
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(sent) - 1}/{len(sent)}"
        if self.command == "GET" and rest in self.hub.cut:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(sent) - start))
            self.end_headers()
            self.wfile.write(sent[start : start + self.hub.cut.pop(rest)])
            self.close_connection = True
            return
        self._write(206 if start else 200, sent[start:], **headers)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
