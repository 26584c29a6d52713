"""Key-value buckets and object stores: what ``kv_…`` and ``object_…`` do."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

from nats.js import JetStreamContext, api
from nats.js.errors import (
    BucketNotFoundError,
    NoKeysError,
    NotFoundError,
    ObjectNotFoundError,
)
from nats.js.kv import KV_DEL, KV_MARKER_REASON, KV_OP, KV_PURGE, VALID_KEY_RE, KeyValue
from nats.js.object_store import ObjectStore

from app.errors import ToolError
from app.tools import Context
from app.tools.bus.connections import Connected
from app.tools.bus.request import Input
from app.tools.bus.values import decoded, encoded

Result = dict[str, Any]
Work = Callable[[Input, Connected, Context, float], Awaitable[Result]]


# ---------------------------------------------------------------------- keys
async def _kv_get(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    key = _key(request)
    subject = f"$KV.{request.bucket}.{key}"
    try:
        await js.key_value(request.bucket)
        # Not the bucket's own get, which does not tell when the value was written.
        message = await js.get_msg(
            f"KV_{request.bucket}",
            seq=request.revision,
            subject=None if request.revision else subject,
        )
    except NotFoundError:
        return _missing(request)
    headers = message.headers or {}
    gone = headers.get(KV_OP) in {KV_DEL, KV_PURGE} or KV_MARKER_REASON in headers
    if gone or message.subject != subject:
        return _missing(request)
    value, extra = decoded(message.data)
    created = message.time.isoformat() if message.time else None
    about = {"value": value, "revision": message.seq, "created": created}
    return {**_found(request), **about, **extra}


async def _kv_put(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js, key, data = connected.client.jetstream(timeout=limit), _key(request), encoded(request)
    ttl = request.ttl
    if ttl is not None and ttl < 1:
        raise ToolError("ttl must be one second or more", kind="schema")
    bucket, made = await _bucket(js, request)
    if request.revision is not None:
        if ttl is not None:
            raise ToolError("kv_put takes revision or ttl, not both", kind="schema")
        revision = await bucket.update(key, data, last=request.revision)
    else:
        ack = await js.publish(f"$KV.{request.bucket}.{key}", data, msg_ttl=ttl)
        revision = ack.seq
    return {**_found(request), "revision": revision, "bucket_created": made}


async def _kv_delete(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js, key = connected.client.jetstream(timeout=limit), _key(request)
    try:
        await (await js.key_value(request.bucket)).delete(key)
    except BucketNotFoundError:
        return _missing(request)
    return _found(request)


async def _kv_purge(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    """Of one key with all its revisions, or of the whole bucket."""
    js = connected.client.jetstream(timeout=limit)
    try:
        bucket = await js.key_value(request.bucket)
    except BucketNotFoundError:
        return _missing(request)
    if request.key:
        await bucket.purge(_key(request))
    else:
        await js.purge_stream(f"KV_{request.bucket}")
    return _found(request)


async def _kv_keys(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    try:
        found = await (await js.key_value(request.bucket)).keys()
    except NoKeysError:
        found = []
    except BucketNotFoundError:
        return {**_missing(request), "keys": [], "count": 0}
    names = sorted(name for name in found if name.startswith(request.key))
    return {"status": "success", "bucket": request.bucket, "keys": names, "count": len(names)}


async def _bucket(js: JetStreamContext, request: Input) -> tuple[KeyValue, bool]:
    """The bucket, and whether it was made just now."""
    try:
        return await js.key_value(request.bucket), False
    except BucketNotFoundError:
        if not request.create:
            raise
    return await js.create_key_value(bucket=request.bucket), True


def _key(request: Input) -> str:
    key = request.key
    if not VALID_KEY_RE.match(key) or key.startswith(".") or key.endswith("."):
        raise ToolError(
            f"{key!r} cannot be a key; use letters, digits and any of -/_=. in between",
            kind="schema",
        )
    return key


# ---------------------------------------------------------------------- objects
async def _object_get(
    request: Input, connected: Connected, context: Context, limit: float
) -> Result:
    js = connected.client.jetstream(timeout=limit)
    try:
        store = await js.object_store(request.bucket)
        info = await store.get_info(request.key)
        most = context.settings.result_bytes
        if (info.size or 0) > most:
            raise ToolError(
                f"the object {request.key!r} has {info.size} bytes, more than the {most} allowed "
                "(setting CALLBOARD_RESULT_BYTES)",
                kind="resource",
            )
        content = io.BytesIO()
        await store.get(request.key, writeinto=content)
    except (BucketNotFoundError, ObjectNotFoundError):
        return _missing(request)
    value, extra = decoded(content.getvalue())
    return {**_found(request), **_about(info), "value": value, **extra}


async def _object_put(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    store, made = await _store(js, request)
    info = await store.put(request.key, encoded(request))
    return {**_found(request), **_about(info), "bucket_created": made}


async def _object_delete(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    try:
        await (await js.object_store(request.bucket)).delete(request.key)
    except (BucketNotFoundError, ObjectNotFoundError):
        return _missing(request)
    return _found(request)


async def _object_info(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    try:
        info = await (await js.object_store(request.bucket)).get_info(request.key)
    except (BucketNotFoundError, ObjectNotFoundError):
        return _missing(request)
    return {**_found(request), **_about(info)}


async def _object_list(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    js = connected.client.jetstream(timeout=limit)
    try:
        found = await (await js.object_store(request.bucket)).list(ignore_deletes=True)
    except BucketNotFoundError:
        return {**_missing(request), "objects": [], "count": 0}
    except NotFoundError:
        found = []
    listed = [{"name": info.name, **_about(info)} for info in found]
    listed.sort(key=lambda item: str(item["name"]))
    return {
        "status": "success",
        "bucket": request.bucket,
        "objects": listed,
        "count": len(listed),
    }


async def _store(js: JetStreamContext, request: Input) -> tuple[ObjectStore, bool]:
    try:
        return await js.object_store(request.bucket), False
    except BucketNotFoundError:
        if not request.create:
            raise
    return await js.create_object_store(request.bucket), True


def _about(info: api.ObjectInfo) -> Result:
    return {"size": info.size or 0, "chunks": info.chunks or 0, "digest": info.digest}


def _found(request: Input) -> Result:
    return {"status": "success", "bucket": request.bucket, "key": request.key or None}


def _missing(request: Input) -> Result:
    return {
        "status": "not_found",
        "bucket": request.bucket,
        "key": request.key or None,
        "value": None,
    }


#: What each operation does, and which keys it needs.
KEYS: dict[str, tuple[Work, tuple[str, ...]]] = {
    "kv_get": (_kv_get, ("bucket", "key")),
    "kv_put": (_kv_put, ("bucket", "key")),
    "kv_delete": (_kv_delete, ("bucket", "key")),
    "kv_keys": (_kv_keys, ("bucket",)),
    "kv_purge": (_kv_purge, ("bucket",)),
}
OBJECTS: dict[str, tuple[Work, tuple[str, ...]]] = {
    "object_get": (_object_get, ("bucket", "key")),
    "object_put": (_object_put, ("bucket", "key")),
    "object_delete": (_object_delete, ("bucket", "key")),
    "object_info": (_object_info, ("bucket", "key")),
    "object_list": (_object_list, ("bucket",)),
}
