"""The operations of a running service, over its HTTP API. Light: the standard library only."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from service.contract import Document, OnProgress, Source, number
from service.errors import NotDone, NotFound, Refusal, TryLater, UsageError
from service.lock import Running

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 600.0
_CHUNK = 1 << 20
_PAGE = 1000
_LONG = ("/studies", "/jobs")
"""Lists that come in pages."""


class ServiceOperations:
    """``service.contract.Operations`` asked of a running service. Threads may share it: each has its own connection."""

    def __init__(self, running: Running) -> None:
        parts = urlsplit(running.url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._fingerprint = running.fingerprint if parts.scheme == "https" else ""
        self._headers = {"Authorization": f"Bearer {running.token}", "Accept": "application/json"}
        self._local = threading.local()
        self._guard = threading.Lock()
        self._open: list[http.client.HTTPConnection] = []

    def studies(self) -> list[Document]:
        return self._list("GET", "/studies")

    def ingest(self, source: Source, *, reconcile: str = "") -> Document:
        query = f"?{urlencode({'reconcile': reconcile})}" if reconcile else ""
        with source.open() as stream:
            connection = self._connection()
            try:
                connection.putrequest("POST", f"/api/v1/instances{query}", skip_accept_encoding=True)
                for name, value in self._headers.items():
                    connection.putheader(name, value)
                connection.putheader("Content-Type", "application/dicom")
                connection.putheader("Content-Length", str(source.size))
                connection.endheaders()
                left = source.size
                while left and (chunk := stream.read(min(_CHUNK, left))):
                    connection.send(chunk)
                    left -= len(chunk)
                if left:
                    raise NotDone("the file became shorter while it was read")
                answer = self._answer(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error) from error
            except BaseException:
                self._drop()
                raise
        if not isinstance(answer, dict):
            raise NotDone("the service gave an answer that cannot be understood")
        return answer

    def plan(self, selection: Mapping[str, Any], options: Mapping[str, Any], progress: OnProgress) -> Document:
        return self.told("plan", "/plans", {"selection": dict(selection), "options": _given(options)}, progress)

    def told(self, name: str, path: str, body: Document, progress: OnProgress) -> Document:
        """The document of long work, its progress told on the way."""
        with self._lines(path, body) as lines:
            for line in lines:
                if "progress" in line:
                    progress(line["progress"])
                elif name in line:
                    return dict(line[name])
                elif "problem" in line:
                    raise refusal(int(line["problem"]["status"]), line["problem"])
        raise NotDone(f"the service stopped before the {name} was ready")

    def check(self, selection: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
        return self._one("POST", "/checks", {"selection": dict(selection), "options": _given(options)})

    def plan_document(self, plan: str) -> Document:
        return self._one("GET", f"/plans/P{number('P', plan)}")

    def burn(
        self,
        *,
        selection: Mapping[str, Any] | None,
        plan: str | None,
        options: Mapping[str, Any],
        idempotency_key: str | None = None,
    ) -> Document:
        body: Document = {"options": _given(options)}
        if selection:
            body["selection"] = dict(selection)
        if plan is not None:
            body["plan"] = f"P{number('P', plan)}"
        if idempotency_key is not None:
            body["idempotency_key"] = idempotency_key
        return self._one("POST", "/jobs", body)

    def job(self, job: str) -> Document:
        return self._one("GET", f"/jobs/J{number('J', job)}")

    def jobs(self) -> list[Document]:
        return self._list("GET", "/jobs")

    def cancel(self, job: str) -> Document:
        return self._one("POST", f"/jobs/J{number('J', job)}/cancel", {})

    def retry(self, job: str, *, burner: str = "", skip_refused: bool = False) -> Document:
        body = {"burner": burner, "skip_refused": skip_refused}
        return self._one("POST", f"/jobs/J{number('J', job)}/retry", body)

    def find(self, criteria: Mapping[str, str]) -> list[Document]:
        return self._list("POST", "/catalogue/search", {key: value for key, value in criteria.items() if value})

    def medium(self, *, file_set_uid: str, file_set_id: str) -> Document:
        return self._one("POST", "/catalogue/medium", {"file_set_uid": file_set_uid, "file_set_id": file_set_id})

    def record_check(self, disc: str, *, good: bool, how: str, detail: Document) -> Document:
        body = {"disc": f"D{number('D', disc)}", "good": good, "how": how, "detail": detail}
        return self._one("POST", "/catalogue/checks", body)

    def purge(self, *, min_copies: int, dry_run: bool) -> Document:
        return self._one("POST", "/spool/purge", {"min_copies": min_copies, "dry_run": dry_run})

    def nodes(self) -> list[Document]:
        return self._list("GET", "/nodes")

    def add_node(self, values: Mapping[str, Any]) -> Document:
        return self._one("POST", "/nodes", dict(values))

    def remove_node(self, name: str) -> Document:
        return self._one("DELETE", f"/nodes/{quote(name, safe='')}")

    def echo_node(self, name: str) -> Document:
        return self._one("POST", f"/nodes/{quote(name, safe='')}/echo", {})

    def pull(self, name: str, criteria: Mapping[str, Any], progress: OnProgress, *, by: str | None = None) -> Document:
        body = {key: value for key, value in criteria.items() if value} | {"by": by}
        return self.told("pull", f"/nodes/{quote(name, safe='')}/pull", body, progress)

    def send(self, name: str, selection: Mapping[str, Any], progress: OnProgress, *, commit: bool = False) -> Document:
        body = {"selection": dict(selection), "commit": commit}
        return self.told("send", f"/nodes/{quote(name, safe='')}/send", body, progress)

    def delete(self, selection: Mapping[str, Any]) -> Document:
        return self._one("POST", "/spool/delete", {"selection": dict(selection)})

    def label(self, of: str, *, volume: int | None, printer: str) -> Document:
        return self._one("GET", _label(of, "", volume=volume, printer=printer))

    def label_picture(
        self, of: str, kind: str, *, volume: int | None, printer: str, dpi: int | None, guides: bool
    ) -> bytes:
        path = _label(of, f"/{kind}", volume=volume, printer=printer, dpi=dpi, guides=guides or None)
        connection = self._connection()
        try:
            response = self._send(connection, "GET", path, None, {**self._headers, "Accept": "*/*"})
            if response.status >= 400:
                self._answer(response)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        except Refusal:
            raise
        except BaseException:
            self._drop()
            raise
        if response.will_close:
            self._drop()
        return content

    def burners(self) -> list[Document]:
        return self._list("GET", "/burners")

    def doctor(self) -> Document:
        return self._one("GET", "/doctor")

    def close(self) -> None:
        with self._guard:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _one(self, method: str, path: str, body: Document | None = None) -> Document:
        answer = self.ask(method, path, body)
        if not isinstance(answer, dict):
            raise NotDone("the service gave an answer that cannot be understood")
        return answer

    def _list(self, method: str, path: str, body: Document | None = None) -> list[Document]:
        """Every item of a list, page by page: a GET is told where to go on in its URL, others in their body."""
        found: list[Document] = []
        cursor: str | None = None
        while True:
            if method == "GET":
                at = {"limit": _PAGE} if path in _LONG else {}
                query = urlencode(at | ({"cursor": cursor} if cursor else {}))
                answer = self.ask(method, f"{path}?{query}" if query else path, None)
            else:
                answer = self.ask(method, path, {**(body or {}), **({"cursor": cursor} if cursor else {})})
            if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
                raise NotDone("the service gave an answer that cannot be understood")
            found += answer["items"]
            cursor = answer.get("next")
            if cursor is None:
                return found

    def ask(self, method: str, path: str, body: Document | None) -> Any:
        """The JSON document that ``METHOD /api/v1PATH`` answers."""
        connection = self._connection()
        try:
            return self._answer(self._send(connection, method, path, body, self._headers))
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        except Refusal:
            raise
        except BaseException:
            self._drop()
            raise

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Document | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        extra = {} if content is None else {"Content-Type": "application/json"}
        connection.request(method, f"/api/v1{path}", content, {**headers, **extra})
        return connection.getresponse()

    @contextmanager
    def _lines(self, path: str, body: Document) -> Iterator[Iterator[Document]]:
        """The lines of an answer that comes bit by bit (application/x-ndjson)."""
        connection = self._connection()
        if connection.sock is not None:
            connection.sock.settimeout(None)
        try:
            headers = {**self._headers, "Accept": "application/x-ndjson"}
            response = self._send(connection, "POST", path, body, headers)
            if response.status >= 400:
                self._answer(response)
            yield (json.loads(line) for line in response if line.strip())
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        finally:
            self._drop()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._new_connection()
            try:
                connection.connect()
                self._require_ours(connection)
            except OSError as error:
                raise TryLater(f"the service does not answer: {error.strerror or error}", "NO_SERVICE") from error
            if connection.sock is not None:
                connection.sock.settimeout(_ANSWER_SECONDS)
            self._local.connection = connection
            with self._guard:
                self._open.append(connection)
        return connection

    def _new_connection(self) -> http.client.HTTPConnection:
        if not self._fingerprint:
            return http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
        import ssl

        # Whose certificate it is the service has said in a file that only it could write; no authority is asked.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self._host, self._port, timeout=_CONNECT_SECONDS, context=context)

    def _require_ours(self, connection: http.client.HTTPConnection) -> None:
        """Before the token is sent: that the other side has the certificate that the service named."""
        if not self._fingerprint:
            return
        import ssl

        connection.auto_open = 0  # no second one behind our back that nobody looks at
        shown = connection.sock.getpeercert(binary_form=True) if isinstance(connection.sock, ssl.SSLSocket) else None
        if hashlib.sha256(shown or b"").hexdigest() != self._fingerprint:
            connection.close()
            raise NotDone("what answers has not the certificate of the service; the token was not sent", "CERTIFICATE")

    def _drop(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
            with self._guard:
                if connection in self._open:
                    self._open.remove(connection)

    def _lost(self, error: Exception) -> Refusal:
        self._drop()
        return TryLater(f"the service does not answer any more: {error}".rstrip(": "), "NO_SERVICE")

    def _answer(self, response: http.client.HTTPResponse) -> Any:
        content = response.read()
        if response.will_close:
            self._drop()
        try:
            document = json.loads(content) if content else {}
        except ValueError:
            document = {"detail": f"HTTP status {response.status}"}
        if response.status >= 400:
            raise refusal(response.status, document if isinstance(document, dict) else {})
        return document


def _given(options: Mapping[str, Any]) -> Document:
    return {key: value for key, value in options.items() if value is not None}


def _label(of: str, kind: str, **query: Any) -> str:
    given = urlencode({key: value for key, value in query.items() if value not in (None, "")})
    return f"/labels/{quote(of.strip(), safe='')}{kind}" + (f"?{given}" if given else "")


def refusal(status: int, problem: Mapping[str, Any]) -> Refusal:
    """The error that an answer of this HTTP status tells of."""
    text = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    code = str(problem.get("code") or f"HTTP_{status}")
    if status == 404:
        return NotFound(text, code)
    if status == 422:
        return UsageError(text, code)
    return TryLater(text, code) if status == 503 else NotDone(text, code)
