"""A client of the control plane's HTTP API, for workers, the command line and tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from pydantic import ValidationError

from app.client.problems import error_of
from app.client.transport import BrokenStreamError, Json, Pieces, Transport, encode
from app.wire import (
    ArtifactAnswer,
    ArtifactRequest,
    Beat,
    BeatAnswer,
    ClaimRequest,
    ClaimResponse,
    CredentialPut,
    CredentialTest,
    Exchange,
    ExchangeAnswer,
    LogAnswer,
    LogBatch,
    Registered,
    ReportRequest,
    ReportResponse,
    SecretAnswer,
    SecretRequest,
    Started,
    TokenAnswer,
    TokenPut,
    TokenPutAnswer,
    TokenRequest,
    ValueRequest,
)

#: Seconds for one batch to be removed: as long as Postgres may take for a statement of it.
PRUNING = 600.0

__all__ = ["BrokenStreamError", "Client", "Json", "Pieces", "error_of"]


class Client(Transport):
    """Calls the API; see ``Transport`` for its arguments and its patience.

    Every method raises the ``CallboardError`` that the server reported, or ``UnavailableError``.
    """

    # ------------------------------------------------------------------ workers
    def exchange(self, request: Exchange) -> ExchangeAnswer:
        """Report what ended and claim what comes next; safe to repeat, as each has a key."""
        return self._model(ExchangeAnswer, "/api/worker/exchange", encode(request))

    def claim(self, request: ClaimRequest) -> ClaimResponse:
        """Ask for attempts; repeating it is safe, as each claim has a key."""
        return self._model(ClaimResponse, "/api/worker/claim", encode(request))

    def report(self, request: ReportRequest) -> ReportResponse:
        """Say how attempts ended; repeating it is safe, as each report has a key."""
        return self._model(ReportResponse, "/api/worker/report", encode(request))

    def value(self, request: ValueRequest) -> bytes:
        """What an attempt refers to, as JSON."""
        return self._send("POST", "/api/worker/values", encode(request), again=True).data

    def secret(self, request: SecretRequest) -> SecretAnswer:
        """A credential, for the attempt that is being worked on."""
        return self._model(SecretAnswer, "/api/worker/secret", encode(request))

    def take_token(self, request: TokenRequest) -> TokenAnswer:
        """The kept value of a keychain's entry, or the turn to fetch it; safe to repeat."""
        return self._model(TokenAnswer, "/api/worker/keychain/take", encode(request))

    def put_token(self, request: TokenPut) -> TokenPutAnswer:
        """End the turn with what was fetched; safe to repeat: a turn ends once."""
        return self._model(TokenPutAnswer, "/api/worker/keychain/put", encode(request))

    def artifact(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer:
        """Keep *pieces*, which are what *request* says; sent once, and only where they are new.

        What is refused is refused before they are sent.
        """
        answer = self._model(ArtifactAnswer, "/api/worker/artifacts", encode(request))
        if answer.kept:
            return answer
        target = f"/api/worker/artifacts?{urlencode(request.model_dump())}"
        response = self._answer_to(target, pieces(), request.size)
        if response.status >= 400:
            self._refuse(response)
        try:
            return ArtifactAnswer.model_validate_json(response.data)
        except ValidationError as exc:
            raise self._not_ours() from exc

    def download(self, ref: str) -> Pieces:
        """The bytes of the artifact that *ref* stands for, piece by piece."""
        return self._pieces(f"/api/artifacts?{urlencode({'ref': ref})}")

    def logs(self, batch: LogBatch) -> LogAnswer:
        """Hand over what attempts printed; repeating it is safe, as each piece has an index."""
        return self._model(LogAnswer, "/api/worker/logs", encode(batch))

    def beat(self, beat: Beat) -> BeatAnswer:
        """Give a sign of life; the answer names the attempts to stop."""
        return self._model(BeatAnswer, "/api/worker/beat", encode(beat))

    def leave(self, kind: str, name: str) -> bool:
        """Say goodbye; whether the process was known."""
        body = orjson.dumps({"kind": kind, "name": name})
        answer = self._json("POST", "/api/worker/pool/deregister", body=body)
        return bool(answer["status"] == "ok")

    def pools(self, status: str | None = None) -> list[Json]:
        """The worker processes that beat."""
        found: list[Json] = self._json("GET", "/api/worker/pools", {"status": status})["items"]
        return found

    # ------------------------------------------------------------------ catalog
    def register(self, content: str, *, resource_type: str = "Playbook") -> Registered:
        """Store YAML as the next version of its path. Raises ``InvalidPlaybookError``."""
        body = orjson.dumps({"content": content, "resource_type": resource_type})
        return self._model(Registered, "/api/catalog/register", body, again=False)

    def validate(self, content: str) -> Json:
        """``{valid, findings}`` of a playbook, warnings included, without storing it."""
        body = orjson.dumps({"content": content})
        return self._object("POST", "/api/catalog/validate", body=body)

    def schema(self, tool: str | None = None) -> Json:
        """The JSON Schema of playbooks, or of one kind of tool."""
        return self._object("GET", "/api/catalog/schema", {"tool": tool})

    def catalog_list(
        self, resource_type: str | None = None, *, path: str | None = None
    ) -> list[Json]:
        """The newest version of every path, or every version of *path*."""
        body = orjson.dumps({"resource_type": resource_type, "path": path})
        found: list[Json] = self._json("POST", "/api/catalog/list", body=body)["entries"]
        return found

    def catalog_get(
        self,
        path: str | None = None,
        *,
        version: int | None = None,
        catalog_id: int | str | None = None,
    ) -> Json:
        """One resource with its content. Raises ``NotFoundError``."""
        body = orjson.dumps({"path": path, "version": version, "catalog_id": catalog_id})
        return self._object("POST", "/api/catalog/resource", body=body)

    def explain(
        self,
        content: str | None = None,
        *,
        path: str | None = None,
        version: int | None = None,
    ) -> Json:
        """``{plan, text, mermaid}`` of the playbook in *content*, or of the one at *path*."""
        if content is None:
            return self._object("GET", "/api/catalog/explain", {"path": path, "version": version})
        return self._object("POST", "/api/catalog/explain", body=orjson.dumps({"content": content}))

    # ------------------------------------------------------------------ credentials
    def credential_put(self, credential: CredentialPut) -> Json:
        """Keep a credential under its name, in place of one that is there."""
        return self._object("POST", "/api/credentials", body=encode(credential))

    def credentials(self, *, type: str | None = None, q: str | None = None) -> list[Json]:  # noqa: A002 (the API's name)
        """Credentials by name, without what they hold."""
        found: list[Json] = self._json("GET", "/api/credentials", {"type": type, "q": q})["items"]
        return found

    def credential(self, name: str, *, include_data: bool = False) -> Json:
        """One by name or id; with its fields, those that are secret masked. Raises ``NotFoundError``."""
        return self._object("GET", _credential(name), {"include_data": include_data})

    def credential_delete(self, name: str) -> Json:
        """Forget the one of that name or id. Sent once: a lost answer may have done it."""
        return self._object_once(_credential(name), None, method="DELETE")

    def credential_test(self, name: str) -> CredentialTest:
        """Start the playbook that tries it."""
        return self._model(CredentialTest, f"{_credential(name)}/test", b"{}", again=False)

    # ------------------------------------------------------------------ executions
    def execute(
        self,
        path: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        catalog_id: int | str | None = None,
        key: str | None = None,
    ) -> Started:
        """Start a playbook; starting twice under one *key* is starting once.

        By default each call has a key of its own, so that it may be repeated.
        """
        body = orjson.dumps(
            {
                "path": path,
                "payload": dict(payload or {}),
                "version": version,
                "catalog_id": None if catalog_id is None else str(catalog_id),
            },
            option=orjson.OPT_NON_STR_KEYS,
        )
        return self._model(Started, "/api/execute", body, key=key or uuid.uuid4().hex)

    def executions(self, **filters: Any) -> list[Json]:
        """Newest first; filters: status, path, started_after, started_before, cursor, limit, …"""
        found: list[Json] = self._json("GET", "/api/executions", filters)
        return found

    def execution(self, execution_id: int | str, **query: Any) -> Json:
        """One execution with a page of its events (``include_events=False``: without)."""
        return self._object("GET", _of(execution_id), query)

    def status(self, execution_id: int | str, **query: Any) -> Json:
        """Where it stands, step by step (``variables=False``: without values; ``full=True``).

        ``wait=30``: as soon as it has ended, or after 30 seconds.
        """
        return self._object("GET", _of(execution_id, "status"), query)

    def events(self, execution_id: int | str, **query: Any) -> list[Json]:
        """A page of events; query: page, page_size, since_event_id, since_seq, event_type."""
        answer = self._json("GET", _of(execution_id, "events"), query)
        found: list[Json] = answer["events"]
        return found

    def output(self, execution_id: int | str, **query: Any) -> Json:
        """``{chunks, next, ended}`` of what steps printed; query: after, wait, limit, tail, step, …"""
        return self._object("GET", _of(execution_id, "logs"), query)

    def result(self, execution_id: int | str, step: str | None = None) -> Any:
        """The result of *step*, by default of the one that ended last. Raises ``NotFoundError``."""
        return self._json("GET", _of(execution_id, "result"), {"step": step})["result"]

    def result_outline(self, execution_id: int | str, step: str | None = None) -> Json:
        """``{step, status, ref, store, size_bytes, preview}`` of a result: the value is not sent."""
        return self._object("GET", _of(execution_id, "result"), {"step": step, "outline": True})

    def results(self, execution_id: int | str) -> list[Json]:
        """The outline of each step's result."""
        path = f"/api/result/{quote(str(execution_id), safe='')}/list"
        found: list[Json] = self._json("GET", path)["results"]
        return found

    def result_text(self, execution_id: int | str, step: str) -> Pieces:
        """The result of *step* as JSON, piece by piece. Raises ``NotFoundError``."""
        query = urlencode({"step": step, "raw": "true"})
        return self._pieces(f"{_of(execution_id, 'result')}?{query}")

    def resolve(self, ref: str) -> Pieces:
        """The value that a ``noetl://`` reference stands for, as JSON, piece by piece."""
        return self._pieces(f"/api/result/resolve?{urlencode({'ref': ref})}")

    def cancel(
        self, execution_id: int | str, *, reason: str | None = None, cascade: bool = True
    ) -> Json:
        """End it; ``status`` says cancelled or already_completed."""
        body = orjson.dumps({"reason": reason, "cascade": cascade})
        return self._object("POST", _of(execution_id, "cancel"), body=body)

    def pause(
        self, execution_id: int | str, *, reason: str | None = None, cascade: bool = True
    ) -> Json:
        """Start nothing new in it. Raises ``ConflictError`` where it has ended."""
        body = orjson.dumps({"reason": reason, "cascade": cascade})
        return self._object("POST", _of(execution_id, "pause"), body=body)

    def resume(self, execution_id: int | str, *, cascade: bool = True) -> Json:
        """Let it go on. Raises ``ConflictError`` where it has ended."""
        body = orjson.dumps({"cascade": cascade})
        return self._object("POST", _of(execution_id, "resume"), body=body)

    def retry(
        self,
        execution_id: int | str,
        *,
        step: str | None = None,
        version: int | str | None = None,
    ) -> Json:
        """Try again what failed. Sent once: a lost answer may have started an execution."""
        body = orjson.dumps({"step": step, "version": version})
        return self._object_once(_of(execution_id, "retry"), body)

    def rerun(self, execution_id: int | str, *, version: int | str | None = None) -> Json:
        """Start its playbook again from the beginning. Sent once, as ``retry`` is."""
        body = orjson.dumps({"version": version})
        return self._object_once(_of(execution_id, "rerun"), body)

    def prune(self, **request: Any) -> Json:
        """Remove a batch of old executions, as ``Prune`` says; what went is gone when it is repeated."""
        body, path = orjson.dumps(request), "/api/executions/prune"
        answer: Json = self._decode(self._send("POST", path, body, again=True, timeout=PRUNING))
        return answer

    def archive(self, execution_id: int | str) -> Pieces:
        """All that is known of an execution, as one line of JSON, piece by piece."""
        return self._pieces(_of(execution_id, "archive"))

    def replay(self, execution_id: int | str, **query: Any) -> Json:
        """A page of what each event changed; query: after, at, limit, step."""
        return self._object("GET", _of(execution_id, "replay"), query)

    def replay_state(self, execution_id: int | str, at: int | None = None) -> Json:
        """The state as of event *at*, by default as of now, as ``{execution_id, at_seq, state}``."""
        query = {"execution_id": execution_id, "at_seq": at}
        return self._object("GET", "/api/replay/state", query)

    def verify(self, execution_id: int | str) -> Json:
        """Whether what is shown is what the log says: ``{ok, events, findings, …}``."""
        return self._object("GET", _of(execution_id, "verify"))

    def why(self, execution_id: int | str, step: str | None = None) -> Json:
        """Why it, or *step* of it, does not go on or failed: ``{reason, steps, …}``."""
        return self._object("GET", _of(execution_id, "why"), {"step": step})

    def stats(self) -> Json:
        """Counts of executions and playbooks."""
        return self._object("GET", "/api/dashboard/stats")

    def health(self) -> Json:
        """``{status: ready | unready, checks}``; raises only where nobody answers.

        A check that is not ok although the server is ready is a warning.
        """
        response = self._once("GET", "/readyz", None)
        data = self._decode(response)
        if response.status not in {200, 503} or not isinstance(data, dict) or "checks" not in data:
            self._refuse(response)
        return {
            "status": "ready" if response.status == 200 else "unready",
            "checks": data["checks"],
        }

    def doctor(self) -> Json:
        """``{status: well | trouble, version, checks}`` of the whole installation."""
        return self._object("GET", "/api/doctor")


def _of(execution_id: int | str, part: str = "") -> str:
    path = f"/api/executions/{quote(str(execution_id), safe='')}"
    return f"{path}/{part}" if part else path


def _credential(name: str) -> str:
    return f"/api/credentials/{quote(name, safe='')}"
