"""A hub as the public one is seen by `huggingface_hub`, on top of the fake file server.

    with Hub() as hub:
        commit = hub.commit("org/repo", {"tiny.gguf": content, "README.md": b"text"})
        hub.make_private("org/repo", token)
        ... hub.origin (the endpoint) ... hub.script("org/repo/resolve/main/tiny.gguf", Manner(…))

Shapes of the public hub, as of 2026: a large file (here: *.gguf) is answered with a 302 to another
origin, the `cdn`, and headers that tell its size and sha256 already; a small one with a 307 to
`/api/resolve-cache/…` of the same origin, whose ETag is the sha1 of its git blob. An anonymous
caller meets 401 and RepoNotFound where a repository is private or missing, 401 and GatedRepo where
it is gated; a token that nobody gave out is 401 without a code.
"""

from dataclasses import dataclass, field
from hashlib import sha1, sha256
from types import TracebackType
from typing import Literal
from urllib.parse import quote, unquote

from tests.fakes.source.answer import Answer, File, Request, file_answer, text_answer
from tests.fakes.source.manner import Manner
from tests.fakes.source.server import Source

LARGE = (".gguf", ".bin")
Access = Literal["public", "private", "gated"]


@dataclass(slots=True)
class Repo:
    """A repository: `commits` has all files of each commit, `refs` names some of them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: Access = "public"
    tokens: frozenset[str] = frozenset()


class Hub(Source):
    """The hub, and `cdn`, the server where the bytes of its large files are."""

    def __init__(self) -> None:
        self.cdn = Source()
        self._repos: dict[str, Repo] = {}
        self._moved: dict[str, str] = {}
        self._known_tokens: set[str] = set()
        super().__init__()

    def close(self) -> None:
        """End both servers."""
        super().close()
        self.cdn.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def commit(self, repo: str, files: dict[str, bytes], ref: str = "main") -> str:
        """Commit files on top of a branch, which is made if it is new; return the commit."""
        with self._mutex:
            at = self._repos.setdefault(repo, Repo())
            tree = at.commits.get(at.refs.get(ref, ""), {}) | files
            made = sha1(repr((repo, len(at.commits), sorted(tree.items()))).encode()).hexdigest()
            at.commits[made] = tree
            at.refs[ref] = made
        for content in files.values():
            self.cdn.put(f"blobs/{sha256(content).hexdigest()}", content)
        return made

    def tag(self, repo: str, name: str, commit: str) -> None:
        """Name a commit; a ref that is there is moved."""
        self._repos[repo].refs[name] = commit

    def make_private(self, repo: str, *tokens: str) -> None:
        """Show a repository to these tokens alone."""
        self._restrict(repo, "private", tokens)

    def gate(self, repo: str, *tokens: str) -> None:
        """Let all know of a repository, and only these tokens have its files."""
        self._restrict(repo, "gated", tokens)

    def know(self, token: str) -> None:
        """Accept a token, without giving it any rights."""
        self._known_tokens.add(token)

    def move_repo(self, old: str, new: str) -> None:
        """Rename a repository; its old name leads to the new one."""
        self._repos[new] = self._repos.pop(old)
        self._moved[old] = new

    def _restrict(self, repo: str, access: Access, tokens: tuple[str, ...]) -> None:
        self._repos[repo].access = access
        self._repos[repo].tokens = frozenset(tokens)
        self._known_tokens.update(tokens)

    def answer(self, request: Request, manner: Manner) -> Answer:
        """Answer for a file of a repository; whatever else was put is served as it is."""
        if request.path in self._files:
            return super().answer(request, manner)
        parts = [unquote(part) for part in request.target.split("/")]
        if parts[:3] == ["api", "resolve-cache", "models"] and len(parts) > 6:
            return self._cached("/".join(parts[3:5]), parts[5], "/".join(parts[6:]), request)
        if parts[2:3] == ["resolve"] and len(parts) > 4:
            return self._resolved("/".join(parts[:2]), parts[3], "/".join(parts[4:]), request)
        return problem(404, None, "Sorry, we can't find the page you are looking for.")

    def _resolved(self, name: str, revision: str, path: str, request: Request) -> Answer:
        if name in self._moved:
            moved = request.target.replace(name, self._moved[name], 1)
            return text_answer(307, "Temporary Redirect", {"Location": f"/{moved}"})
        refusal = self._refusal(name, request)
        if refusal is not None:
            return refusal
        repo = self._repos[name]
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            return problem(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        content = repo.commits[commit].get(path)
        if content is None:
            return problem(404, "EntryNotFound", "Entry not found", headers)
        if not path.endswith(LARGE):
            to = f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}"
            to += f"?{quote(request.target, safe='')}=&etag={quote(blob_etag(content), safe='')}"
            return text_answer(307, "Temporary Redirect", headers | {"Location": to})
        return self._large(name, commit, content, headers)

    def _large(self, name: str, commit: str, content: bytes, headers: dict[str, str]) -> Answer:
        digest = sha256(content).hexdigest()
        to = f"{self.cdn.url(f'blobs/{digest}')}?Expires=1&Signature=scripted"
        auth = f"{self.origin}/api/models/{name}/xet-read-token/{commit}"
        headers = headers | {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{digest}"',
            "X-Xet-Hash": sha256(digest.encode()).hexdigest(),
            "Link": f'<{auth}>; rel="xet-auth"',
            "Location": to,
        }
        return text_answer(302, f"Found. Redirecting to {to}", headers)

    def _cached(self, name: str, commit: str, path: str, request: Request) -> Answer:
        refusal = self._refusal(name, request)
        if refusal is not None:
            return refusal
        content = self._repos[name].commits[commit][path]
        file = File(content, blob_etag(content), None)
        found = file_answer(request, file, Manner())
        return Answer(found.status, found.headers | {"X-Repo-Commit": commit}, found.body)

    def _refusal(self, name: str, request: Request) -> Answer | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        is_known = scheme == "Bearer" and token in self._known_tokens
        if scheme and not is_known:
            return problem(401, None, "Invalid credentials in Authorization header")
        repo = self._repos.get(name)
        if repo is None or (repo.access == "private" and token not in repo.tokens):
            if is_known:
                return problem(404, "RepoNotFound", "Repository not found")
            return problem(401, "RepoNotFound", "Invalid username or password.")
        if repo.access == "gated" and token not in repo.tokens:
            said = f"Access to model {name} is restricted."
            return problem(403 if is_known else 401, "GatedRepo", said)
        return None


def blob_etag(content: bytes) -> str:
    """Return the ETag of a small file: the sha1 of its git blob."""
    blob = b"blob %d\0" % len(content) + content
    return f'"{sha1(blob).hexdigest()}"'


def problem(
    status: int, code: str | None, message: str, headers: dict[str, str] | None = None
) -> Answer:
    """Make an error of the hub."""
    shown = {"X-Error-Message": message} | ({} if code is None else {"X-Error-Code": code})
    if status == 401:
        shown["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return text_answer(status, message, (headers or {}) | shown)
