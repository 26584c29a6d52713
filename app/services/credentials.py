"""Credentials: kept sealed, shown without their secrets, handed out to those who need them now."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import structlog

from app.engine.credential_names import computed_names, names_in, texts_in
from app.engine.credential_types import check
from app.engine.credentials import Credential
from app.engine.custody import CredentialDraft, CredentialRow, Custody, for_credential
from app.engine.encoding import dumps, loads
from app.engine.events import ExecutionStarted
from app.engine.ports import CatalogEntry
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.services.cache import Lru
from app.services.catalog import CatalogService
from app.services.claimants import Claimants
from app.services.executions import Executions, Started
from app.wire import CredentialPut, SecretAnswer, SecretRequest

log = structlog.get_logger(__name__)


#: What tries a credential: a playbook like any other, so that a worker does it, where it would be used.
TEST_PATH = "callboard/credential-test"
TEST = f"""\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: credential-test, path: {TEST_PATH}}}
workload: {{credential: ""}}
workflow:
  - step: test
    tool: {{kind: credential, action: test, auth: "{{{{ workload.credential }}}}"}}
"""


class Credentials:
    """The use cases behind ``/api/credentials`` and ``/api/worker/secret``."""

    def __init__(
        self,
        custody: Custody,
        catalog: CatalogService,
        executions: Executions,
        claimants: Claimants,
    ) -> None:
        self._sealer = custody.sealer
        self._store = custody.credentials
        self._catalog = catalog
        self._executions = executions
        self._claimants = claimants
        self._named: Lru[int, frozenset[str]] = Lru(256)

    # ------------------------------------------------------------------ keep and show
    def put(self, draft: CredentialPut) -> CredentialRow:
        """Keep a credential under its name, in place of one that is there.

        Raises ``BadRequestError`` that names the field where its data does not fit its type.
        """
        _check_name(draft.name)
        check(draft.type, draft.data)
        row = self._store.put(
            CredentialDraft(
                name=draft.name,
                type=draft.type,
                sealed=self._sealer.seal(dumps(draft.data), for_credential(draft.name)),
                meta=draft.meta,
                tags=draft.tags,
                description=draft.description,
                scope=draft.scope.model_dump() if draft.scope else None,
            )
        )
        log.info("credential.kept", credential=row.name, type=row.type)
        return row

    def shown(self, row: CredentialRow) -> dict[str, Any]:
        """What *row* holds with every secret field masked."""
        return Credential(row.name, row.type, self._opened(row)).shown()

    def get(self, name: str) -> CredentialRow:
        """The credential of that name, or of that id. Raises ``NotFoundError``."""
        found = self._store.named(name)
        if found is None and name.isascii() and name.isdigit() and int(name) < 1 << 63:
            found = self._store.numbered(int(name))
        if found is None:
            raise NotFoundError(
                f"there is no credential {name!r}",
                remedy="add it with 'callboard credential add', or see 'callboard credential list'",
            )
        return found

    def list(self, *, type: str | None = None, q: str | None = None) -> Sequence[CredentialRow]:  # noqa: A002 (its name everywhere)
        """Those of a type, or with *q* in name, description or a tag; by name."""
        return self._store.rows(type=type or None, q=q or None)

    def delete(self, name: str) -> CredentialRow:
        """Forget the credential of that name, or of that id. Raises ``NotFoundError``."""
        row = self.get(name)
        self._store.delete(row.id)
        log.info("credential.deleted", credential=row.name)
        return row

    def test(self, name: str) -> Started:
        """Start the playbook that tries the credential. Raises ``NotFoundError``."""
        row = self.get(name)
        return self._executions.start(
            catalog_id=self._test_playbook().catalog_id, payload={"credential": row.name}
        )

    def _test_playbook(self) -> CatalogEntry:
        """The playbook of tests, registered where this version's is not the newest."""
        found = self._catalog.find(TEST_PATH)
        return found if found and found.content == TEST else self._catalog.register(TEST)

    # ------------------------------------------------------------------ hand out
    def hand_out(self, request: SecretRequest, pool: str | None = None) -> SecretAnswer:
        """The credential in the clear, for the worker of an attempt whose playbook names it.

        *pool* is the one that the caller's token is limited to. Raises ``ForbiddenError`` where the
        attempt is not claimed by this worker now, the playbook does not name the credential, or its
        scope leaves the playbook or the pool out; ``NotFoundError``.
        """
        name = request.name
        started, queue = self._claimants.check(
            request, request.worker, pool=pool, what=f"credential {name!r}"
        )
        self._check_named(started, request.step, name)
        row = self._store.named(name)
        if row is None:
            raise NotFoundError(
                f"there is no credential {name!r}",
                remedy="add it with 'callboard credential add', give its file to 'callboard run' "
                f"with --credential, or set NOETL_SECRET_{name.upper()} for the worker",
            )
        if not self._is_test(started):
            _check_scope(row, "paths", "playbook", started.path)
        _check_scope(row, "pools", "pool", queue.partition(".")[0])
        data = self._opened(row)
        log.info(
            "credential.handed_out",
            credential=name,
            execution_id=request.execution_id,
            step=request.step,
            attempt=request.attempt,
            worker=request.worker,
        )
        return SecretAnswer(name=row.name, type=row.type, data=data)

    def _is_test(self, started: ExecutionStarted) -> bool:
        """Whether this is our own playbook, and not one that was registered over it."""
        if started.path != TEST_PATH:
            return False
        return self._catalog.entry(catalog_id=started.catalog_id).content == TEST

    def _opened(self, row: CredentialRow) -> dict[str, Any]:
        data: dict[str, Any] = loads(self._sealer.open(row.sealed, for_credential(row.name)))
        return data

    def _check_named(self, started: ExecutionStarted, step: str, name: str) -> None:
        names = self._named.get(started.catalog_id)
        if names is None:
            names = names_in(self._catalog.playbook(started.catalog_id))
            self._named.put(started.catalog_id, names)
        known = name in names or any(text == name for text in texts_in(started.workload))
        if not known and name not in computed_names(
            self._catalog.playbook(started.catalog_id), step, started.workload
        ):
            raise ForbiddenError(
                f"the playbook {started.path!r} does not name the credential {name!r}",
                remedy="write its name out, give it in the payload, or list it under "
                "executor.requires.credentials where the name is computed",
            )


def _check_name(name: str) -> None:
    if name != name.strip() or any(ord(sign) < ord(" ") for sign in name):
        raise BadRequestError(
            "the name of a credential has no space around it and no control characters",
            remedy="choose another name",
        )
    if name.isascii() and name.isdigit():
        raise BadRequestError(
            f"the name {name!r} looks like an id", remedy="begin the name with a letter"
        )
    if "/" in name or "{{" in name:
        raise BadRequestError(
            f"the name {name!r} holds '/' or '{{{{'",
            remedy="a name is text that stands in playbooks and URLs as it is",
        )


def _check_scope(row: CredentialRow, key: str, what: str, value: str) -> None:
    """Raise ``ForbiddenError`` where *value* is not among what the scope of *row* allows of *key*."""
    allowed = (row.scope or {}).get(key) or ()
    if allowed and not any(fnmatchcase(value, pattern) for pattern in allowed):
        raise ForbiddenError(
            f"credential {row.name!r} is not for the {what} {value!r}",
            remedy=f"add it to the {key} of the credential's scope, or use another credential",
        )
