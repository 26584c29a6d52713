"""Messages, in streams and without: what ``js_…``, ``publish`` and ``request`` do."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from app.errors import ToolError
from app.tools import Context
from app.tools.bus.connections import Connected
from app.tools.bus.request import Input
from app.tools.bus.stores import Result, Work
from app.tools.bus.values import decoded, encoded, stream_of, subject_of

#: Seconds after which the server forgets a consumer that we made for one read and lost.
FORGOTTEN = 30.0


# ---------------------------------------------------------------------- streams
async def _publish_kept(
    request: Input, connected: Connected, context: Context, limit: float
) -> Result:
    subject, data = subject_of(request), encoded(request)
    stream = stream_of(request) or None
    headers = {**(request.headers or {})}
    headers.setdefault("Nats-Msg-Id", request.msg_id or _message_id(context, subject, data))
    js = connected.client.jetstream(timeout=limit)
    ack = await js.publish(subject, data, timeout=limit, stream=stream, headers=headers)
    return {
        "status": "success",
        "stream": ack.stream,
        "subject": subject,
        "seq": ack.seq,
        "duplicate": bool(ack.duplicate),
        "msg_id": headers["Nats-Msg-Id"],
    }


def _message_id(context: Context, subject: str, data: bytes) -> str:
    """The same for every attempt; another for each message of a step that publishes several."""
    digest = blake2b(subject.encode() + b"\0" + data, digest_size=12).hexdigest()
    return f"{context.idempotency_key}:{digest}"


async def _get(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    stream = stream_of(request)
    if request.seq is None and not request.subject:
        raise ToolError("js_get_msg needs seq, or subject for its newest message", kind="schema")
    js = connected.client.jetstream(timeout=limit)
    await js.stream_info(stream)
    try:
        subject = None if request.seq else request.subject
        found = await js.get_msg(stream, seq=request.seq, subject=subject)
    except NotFoundError:
        missing = {"stream": stream, "seq": request.seq, "subject": request.subject}
        return {"status": "not_found", **missing, "data": None}
    value, extra = decoded(found.data)
    return {
        "status": "success",
        "stream": stream,
        "subject": found.subject,
        "seq": found.seq,
        "data": value,
        "headers": dict(found.headers or {}),
        "time": found.time.isoformat() if found.time else None,
        **extra,
    }


async def _info(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    stream = stream_of(request)
    found = await connected.client.jetstream(timeout=limit).stream_info(stream)
    state = found.state
    return {
        "status": "success",
        "stream": stream,
        "subjects": list(found.config.subjects or []),
        "messages": state.messages,
        "bytes": state.bytes,
        "first_seq": state.first_seq,
        "last_seq": state.last_seq,
        "consumers": state.consumer_count,
        "config": found.config.as_dict(),
    }


async def _consume(request: Input, connected: Connected, context: Context, limit: float) -> Result:
    """What waits, up to ``batch``; what is acknowledged is not given again, whatever becomes of us."""
    stream = stream_of(request)
    js = connected.client.jetstream()
    name = await _consumer(js, stream, request)
    subscription = await js.pull_subscribe_bind(consumer=name, stream=stream)
    try:
        messages = await _fetched(subscription, request.batch, limit)
        size = sum(len(message.data) for message in messages)
        if size > context.settings.result_bytes:
            await asyncio.gather(*(message.nak() for message in messages))
            raise ToolError(
                f"the messages have {size} bytes together, more than the "
                f"{context.settings.result_bytes} allowed; read fewer in one batch",
                kind="resource",
            )
        if request.ack:
            await asyncio.gather(*(message.ack_sync() for message in messages))
    finally:
        await subscription.unsubscribe()
        if not request.consumer:
            await js.delete_consumer(stream, name)
    return {
        "status": "success" if messages else "not_found",
        "stream": stream,
        "consumer": request.consumer,
        "messages": [_shown(message) for message in messages],
        "count": len(messages),
        "acked": request.ack,
    }


async def _consumer(js: JetStreamContext, stream: str, request: Input) -> str:
    """The name of the consumer to read with; it is made where it is missing."""
    if request.consumer:
        try:
            await js.consumer_info(stream, request.consumer)
        except NotFoundError:
            await js.stream_info(stream)  # where that is what is missing, it is what is told
            if not request.create:
                raise
        else:
            return request.consumer
    config = api.ConsumerConfig(
        durable_name=request.consumer,
        filter_subject=request.subject,
        ack_policy=api.AckPolicy.EXPLICIT,
        inactive_threshold=None if request.consumer else FORGOTTEN,
    )
    made = await js.add_consumer(stream, config)
    return str(made.name)


async def _fetched(subscription: Any, batch: int, limit: float) -> list[Msg]:
    try:
        found: list[Msg] = await subscription.fetch(batch, timeout=limit)
    except nats.errors.TimeoutError:
        return []
    return found


def _shown(message: Msg) -> Result:
    value, extra = decoded(message.data)
    about = message.metadata
    return {
        "subject": message.subject,
        "seq": about.sequence.stream,
        "data": value,
        "headers": dict(message.headers or {}),
        "time": about.timestamp.isoformat(),
        "deliveries": about.num_delivered,
        **extra,
    }


# ---------------------------------------------------------------------- without streams
async def _publish(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    subject = subject_of(request)
    await connected.client.publish(subject, encoded(request), headers=request.headers)
    # The server answers a refusal before it answers the flush. The first of two, because nats-py
    # writes its ping ahead of what waits to be written.
    for _turn in range(2):
        await connected.client.flush(timeout=max(1, int(limit)))
    if connected.denied(subject):
        raise nats.errors.AuthorizationError
    return {"status": "success", "subject": subject}


async def _request(request: Input, connected: Connected, _: Context, limit: float) -> Result:
    subject = subject_of(request)
    answer = await connected.client.request(
        subject, encoded(request), timeout=limit, headers=request.headers
    )
    value, extra = decoded(answer.data)
    headers = dict(answer.headers or {})
    return {"status": "success", "subject": subject, "data": value, "headers": headers, **extra}


#: What each operation does, and which keys it needs.
STREAMS: dict[str, tuple[Work, tuple[str, ...]]] = {
    "js_publish": (_publish_kept, ("subject",)),
    "js_get_msg": (_get, ("stream",)),
    "js_stream_info": (_info, ("stream",)),
    "js_consume": (_consume, ("stream",)),
}
CORE: dict[str, tuple[Work, tuple[str, ...]]] = {
    "publish": (_publish, ("subject",)),
    "request": (_request, ("subject",)),
}
