"""A hub of the standard library: as much of its protocol as pushing and pulling ask for, commits in memory.

Every file goes into its commit as it is ("regular"): what a real hub asks for instead, uploads of large files to a
store of their own (LFS, Xet), has no stand-in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from huggingface_hub import HfApi

Files = dict[str, bytes]
WRITER, READER = "hf_writer", "hf_reader"
_API = re.compile(
    r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|preupload|commit|tree|paths-info)/([^/]+))?(?:/.*)?"
)
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories by type and name: their commits, oldest first, and which of them are public."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], list[tuple[str, Files]]] = {}
        self.public: set[tuple[str, str]] = set()
        self.commits: list[list[str]] = []  # paths in the order in which they came
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                status, data, headers = hub.answer(self.command, self.path.partition("?")[0], body, token)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def api(self, token: str | bool = WRITER) -> HfApi:
        return HfApi(endpoint=self.url, token=token)

    def files(self, repo: str, repo_type: str = "model") -> Files:
        """What the newest commit holds."""
        return self.repos[repo_type, repo][-1][1]

    def commit(self, repo: str, files: Files, repo_type: str = "model") -> str:
        commits = self.repos[repo_type, repo]
        sha = hashlib.sha256(repr((len(commits), sorted(files.items()))).encode()).hexdigest()[:40]
        commits.append((sha, files))
        return sha

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, bytes, dict[str, str]]:
        if path == "/api/validate-yaml":
            known = re.search(r"^license: (?!apache-2.0$|mit$|other$)", json.loads(body)["content"], re.M) is None
            errors = [] if known else [{"message": "license must be one of those that are known"}]
            return _json({"errors": errors, "warnings": []}, 200 if known else 400)
        if path == "/api/whoami-v2":
            return _json({"name": "me", "type": "user"}) if token in (WRITER, READER) else _json({}, 401)
        writes = path == "/api/repos/create" or "/commit/" in path or "/preupload/" in path
        if writes and token != WRITER:
            return _json({"error": "no right to write"}, 403 if token == READER else 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := _API.fullmatch(path):
            return self._repo(*found.groups(), body, token)
        if found := _FILE.fullmatch(path):
            key = ("dataset" if found[1] else "model", found[2])
            return self._resolve(key, found[3], found[4], token)
        return _json({}, 404)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        key = (wanted.get("type") or "model", f"{wanted['organization']}/{wanted['name']}")
        url = {"url": f"{self.url}/{key[0]}s/{key[1]}".replace("/models/", "/"), "id": key[1]}
        if key in self.repos:
            return _json({**url, "error": "there already"}, 409)
        self.repos[key] = []
        self.commit(key[1], {".gitattributes": b"*.safetensors filter=lfs\n"}, key[0])
        if wanted.get("visibility") != "private":
            self.public.add(key)
        return _json(url)

    def _at(self, key: tuple[str, str], revision: str, token: str) -> tuple[str, Files] | str:
        """A commit, or the code of the hub's error."""
        if key not in self.repos or (key not in self.public and token not in (WRITER, READER)):
            return "RepoNotFound"
        commits = self.repos[key]
        return commits[-1] if revision == "main" else dict.get({c[0]: c for c in commits}, revision, "RevisionNotFound")

    def _repo(
        self, kind: str, repo: str, what: str | None, revision: str | None, body: bytes, token: str
    ) -> tuple[int, bytes, dict[str, str]]:
        key = (kind, repo)
        at = self._at(key, revision or "main", token)
        if isinstance(at, str):
            return _json({"error": at}, 404, at)
        sha, files = at
        if what == "preupload":
            asked = [one["path"] for one in json.loads(body)["files"]]
            oids = {path: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() for path, data in files.items()}
            return _json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False, "oid": oids.get(p)}
                                    for p in asked]})  # fmt: skip
        if what == "commit":
            return self._commit(key, sha, [json.loads(line) for line in body.splitlines()])
        if what in ("tree", "paths-info"):
            return _json([{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in files.items()])
        siblings = [{"rfilename": path} for path in files]
        return _json({"id": repo, "sha": sha, "private": key not in self.public, "siblings": siblings, "tags": []})

    def _commit(
        self, key: tuple[str, str], parent: str, lines: list[dict[str, Any]]
    ) -> tuple[int, bytes, dict[str, str]]:
        head, *rest = lines
        if head["value"].get("parentCommit", parent) != parent:
            return _json({"error": "another commit came first"}, 412)
        files = dict(self.files(key[1], key[0]))
        for line in rest:
            path = line["value"]["path"]
            if line["key"] == "deletedFile":
                del files[path]
            else:
                files[path] = base64.b64decode(line["value"]["content"])
        self.commits.append([line["value"]["path"] for line in rest])
        sha = self.commit(key[1], files, key[0])
        return _json({"commitUrl": f"{self.url}/{key[1]}/commit/{sha}", "commitOid": sha, "success": True})

    def _resolve(self, key: tuple[str, str], revision: str, path: str, token: str) -> tuple[int, bytes, dict[str, str]]:
        at = self._at(key, revision, token)
        if isinstance(at, str):
            return _json({}, 404, at)
        sha, files = at
        if path not in files:
            return _json({}, 404, "EntryNotFound")
        return 200, files[path], {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(files[path]).hexdigest()}"'}


def _json(data: Any, status: int = 200, error: str = "") -> tuple[int, bytes, dict[str, str]]:
    headers = {"Content-Type": "application/json", **({"X-Error-Code": error} if error else {})}
    return status, json.dumps(data).encode(), headers
