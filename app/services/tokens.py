"""The values of keychain entries between two steps: kept sealed, fetched anew by one worker at a time.

A worker asks (``take``) and is given the kept value, its turn to fetch one (``put`` ends it), or is
told to wait. Nobody waits for a renewal while the old value holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from app.engine.credentials import Credential
from app.engine.custody import Custody, SealError, for_token
from app.engine.encoding import dumps, loads
from app.engine.masking import MASK
from app.engine.ports import Clock
from app.engine.tokens import TokenPlace, TokenRow
from app.errors import BadRequestError, ForbiddenError
from app.services.catalog import CatalogService
from app.services.claimants import Claimants
from app.services.kinship import Kinship
from app.wire import KeychainPut, TokenAnswer, TokenPut, TokenPutAnswer, TokenRequest

log = structlog.get_logger(__name__)

#: Seconds that a worker's turn lasts; then another one may fetch the value.
TURN = 30.0
#: Seconds until one that may use the old value asks again whether there is a new one.
AGAIN = 5.0
#: Seconds that a value is kept after its end: a refresh token in it may still be good.
KEPT_AFTER = 30 * 86_400.0
#: Bytes of one value.
MOST = 1_048_576
#: Seconds that a value lives which a client keeps without saying so, by scope.
LIFE = {"local": 3_600.0, "shared": 604_800.0, "global": 604_800.0}


@dataclass(frozen=True, slots=True)
class Value:
    """A kept value, opened."""

    row: TokenRow
    data: Mapping[str, Any] = field(repr=False)
    renew_config: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Whether a client kept it, and no worker.
    given: bool = False


class Tokens:
    """The use cases behind ``/api/worker/keychain`` and ``/api/keychain``."""

    def __init__(
        self,
        custody: Custody,
        catalog: CatalogService,
        claimants: Claimants,
        kinship: Kinship,
        *,
        pool: str,
        clock: Clock,
    ) -> None:
        self._sealer = custody.sealer
        self._store = custody.tokens
        self._catalog = catalog
        self._claimants = claimants
        self._kinship = kinship
        self._pool = pool
        self._clock = clock

    # ------------------------------------------------------------------ workers
    def take(self, request: TokenRequest, pool: str | None = None) -> TokenAnswer:
        """The value of an entry, or the turn to fetch it, for the worker of a claimed attempt.

        *pool* is the one that the caller's token is limited to. Raises ``ForbiddenError`` where the
        attempt is not claimed by this worker now, or its playbook declares no such entry.
        """
        place = self._place(request, pool)
        value = self._value(place) or self._given(place)
        left = self._left(value)
        renew_in = _renew_in(value, left, request.ahead)
        if value is not None and renew_in > 0:
            return TokenAnswer(
                state="kept", data=dict(value.data), expires_in=left, renew_in=renew_in
            )
        data = dict(value.data) if value else None
        if self._store.lease(place.cache_key, request.holder, seconds=TURN):
            return TokenAnswer(state="yours", data=data, expires_in=left)
        if left > 0:
            again = min(AGAIN, left)
            return TokenAnswer(state="kept", data=data, expires_in=left, renew_in=again)
        return TokenAnswer(state="wait")

    def put(self, request: TokenPut, pool: str | None = None) -> TokenPutAnswer:
        """End a worker's turn: keep what it fetched, if its turn is not over yet. Raises as ``take``."""
        place = self._place(request, pool)
        if request.data is None:
            self._store.release(place.cache_key, request.holder)
            return TokenPutAnswer(accepted=True)
        row = replace(
            self._row(place, request.data, request.ttl),
            credential_type=request.kind,
            auto_renew=request.auto_renew,
        )
        accepted = self._store.settle(row, request.holder)
        if accepted:
            self._store.prune(older_than=KEPT_AFTER)
        log.info(
            "keychain.put",
            entry=request.name,
            scope=request.scope,
            execution_id=request.execution_id,
            worker=request.worker,
            accepted=accepted,
        )
        left = request.ttl
        return TokenPutAnswer(accepted=accepted, renew_in=left - _window(left, request.ahead))

    def _place(self, request: TokenRequest, pool: str | None) -> TokenPlace:
        what = f"keychain entry {request.name!r}"
        started, queue = self._claimants.check(request, request.worker, pool=pool, what=what)
        declared = {str(e["name"]) for e in self._catalog.playbook(started.catalog_id).keychain}
        if request.name not in declared:
            raise ForbiddenError(
                f"the playbook {started.path!r} declares no {what}",
                remedy="declare it below 'keychain'",
            )
        # A credential may be for one pool only: what it opened must not reach another.
        own_pool = queue.partition(".")[0]
        parts = [request.digest] if request.digest else []
        parts += [f"pool:{own_pool}"] if own_pool != self._pool else []
        return TokenPlace(
            name=request.name,
            catalog_id=started.catalog_id,
            scope=request.scope,
            execution_id=self._owner(request.scope, request.execution_id),
            variant=":".join(parts),
        )

    def _owner(self, scope: str, execution_id: int) -> int | None:
        if scope == "global":
            return None
        return execution_id if scope == "local" else self._kinship.root(execution_id)

    def _given(self, place: TokenPlace) -> Value | None:
        """What a client keeps for an entry, whatever the workload and the pool, while it holds."""
        if not place.variant:
            return None
        plain = TokenPlace(place.name, place.catalog_id, place.scope, place.execution_id)
        value = self._value(plain)
        # What a worker of the default pool fetched there is not for other pools.
        return value if value is not None and value.given and self._left(value) > 0 else None

    # ------------------------------------------------------------------ clients
    def get(
        self, catalog_id: int, name: str, scope: str | None = None, execution_id: int | None = None
    ) -> Value | None:
        """The newest value of that entry; None where there is none. Raises ``NotFoundError``."""
        rows = self._found(catalog_id, name, scope, execution_id)
        row = self._store.get(rows[0].cache_key) if rows else None
        return self._shown(row) if row else None

    def values(self, catalog_id: int) -> list[Value]:
        """All that is kept for a playbook's version. Raises ``NotFoundError``."""
        return [self._shown(row) for row in self._found(catalog_id, None, None, None)]

    def keep(self, catalog_id: int, name: str, given: KeychainPut) -> TokenRow:
        """Keep what a client gives. Raises ``BadRequestError`` and ``NotFoundError``."""
        self._catalog.entry(catalog_id=catalog_id)
        owner = _number(given.execution_id)
        if given.scope_type != "global" and owner is None:
            raise BadRequestError(
                f"a value of scope {given.scope_type!r} needs 'execution_id'",
                remedy="send the execution that it is for",
            )
        if given.scope_type == "global":
            owner = None
        elif given.scope_type == "shared" and owner is not None:
            owner = self._kinship.root(_number(given.parent_execution_id) or owner)
        place = TokenPlace(name, catalog_id, given.scope_type, owner)
        row = replace(
            self._row(place, given.token_data, self._ttl(given), given),
            credential_type=given.credential_type,
            cache_type=given.cache_type,
            auto_renew=given.auto_renew,
            parent_execution_id=_number(given.parent_execution_id),
        )
        self._store.put(row)
        log.info("keychain.kept", entry=name, catalog_id=catalog_id, scope=given.scope_type)
        return row

    def forget(
        self, catalog_id: int, name: str, scope: str | None, execution_id: int | None
    ) -> int:
        """Forget the values of that entry; how many there were. Raises ``NotFoundError``."""
        rows = self._found(catalog_id, name, scope, execution_id)
        count = sum(self._store.delete(row.cache_key) for row in rows)
        log.info("keychain.forgotten", entry=name, catalog_id=catalog_id, values=count)
        return count

    def left(self, row: TokenRow) -> float:
        """Seconds until *row* ends; 0 where it has."""
        return max(0.0, row.expires_at.timestamp() - self._clock())

    def _found(
        self, catalog_id: int, name: str | None, scope: str | None, execution_id: int | None
    ) -> list[TokenRow]:
        self._catalog.entry(catalog_id=catalog_id)
        owners = {execution_id}
        if execution_id is not None:
            owners.add(self._kinship.root(execution_id))
        return [
            row
            for row in self._store.rows(catalog_id, name)
            if scope in {None, row.place.scope}
            and (execution_id is None or row.place.execution_id in {None, *owners})
        ]

    def _ttl(self, given: KeychainPut) -> float:
        if given.ttl_seconds is not None and given.expires_at is not None:
            raise BadRequestError(
                "both 'ttl_seconds' and 'expires_at' are given", remedy="send one of them"
            )
        if given.expires_at is None:
            return given.ttl_seconds or LIFE[given.scope_type]
        moment = given.expires_at
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - self._clock())

    # ------------------------------------------------------------------ sealing
    def _row(
        self,
        place: TokenPlace,
        data: Mapping[str, Any],
        ttl: float,
        given: KeychainPut | None = None,
    ) -> TokenRow:
        # How to renew it names secrets, too: it is sealed along; and who kept it cannot be changed.
        renew_config = given.renew_config if given else None
        about = {"renew_config": renew_config, "given": given is not None}
        text = dumps({"data": dict(data), **about})
        if len(text) > MOST:
            raise BadRequestError(
                f"the value is larger than {MOST} bytes", remedy="keep a secret, not a document"
            )
        now = datetime.fromtimestamp(self._clock(), UTC)
        sealed = self._sealer.seal(text, for_token(place.cache_key))
        end = now + timedelta(seconds=min(ttl, 315_360_000.0))
        return TokenRow(place, sealed, end, now)

    def _value(self, place: TokenPlace) -> Value | None:
        row = self._store.get(place.cache_key)
        return None if row is None else self._opened(row)

    def _shown(self, row: TokenRow) -> Value:
        return self._opened(row) or Value(row, {})

    def _opened(self, row: TokenRow) -> Value | None:
        """The value; None where it cannot be opened: it is fetched anew, and takes its place."""
        try:
            held = loads(self._sealer.open(row.sealed, for_token(row.cache_key)))
        except SealError as exc:
            log.warning("keychain.not_opened", cache_key=row.cache_key, error=str(exc))
            return None
        return Value(row, held["data"], held.get("renew_config"), held.get("given", False))

    def _left(self, value: Value | None) -> float:
        return 0.0 if value is None else self.left(value.row)


def masked(data: Any) -> Any:
    """*data* as it may be shown: the names of its fields, and no value. A name says little about
    what a provider of secrets keeps under it."""
    if isinstance(data, Mapping):
        return {str(name): masked(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [masked(value) for value in data]
    return data if data is None or isinstance(data, bool) else MASK


def renewal(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How a value is renewed, as it may be shown."""
    return None if config is None else Credential("", "oauth2", config).shown()


def _window(ttl: float, ahead: float) -> float:
    """Seconds before its end in which a value is renewed: never more than a fifth of its life."""
    return min(ahead, ttl / 5)


def _renew_in(value: Value | None, left: float, ahead: float) -> float:
    if value is None:
        return 0.0
    life = (value.row.expires_at - value.row.created_at).total_seconds()
    return left - _window(life, ahead)


def _number(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 63):
        raise BadRequestError("execution_id is not an id", remedy="send the digits the API gave")
    return int(text)
