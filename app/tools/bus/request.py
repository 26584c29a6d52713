"""What a ``nats`` step asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from app.tools.times import Time

Operation = Literal[
    "kv_get", "kv_put", "kv_delete", "kv_keys", "kv_purge",
    "object_get", "object_put", "object_delete", "object_list", "object_info",
    "js_publish", "js_get_msg", "js_stream_info", "js_consume",
    "publish", "request",
]  # fmt: skip


class Input(BaseModel):
    """``operation``, the server (``url`` or ``auth``), and what the operation is about."""

    model_config = ConfigDict(populate_by_name=True)

    operation: Operation = Field(
        validation_alias=AliasChoices("operation", "action"), description="What to do."
    )
    auth: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("auth", "credential", "credentials"),
        description="The name of a credential, or its fields.",
    )
    url: str | None = Field(None, description="The server: `nats://HOST:PORT`, or several.")
    user: str | None = Field(
        None,
        validation_alias=AliasChoices("user", "username"),
        description="Who connects, with `password`.",
    )
    password: str | None = Field(None, description="The user's password.")
    token: str | None = Field(None, description="A token instead of user and password.")
    creds: str | None = Field(None, description="The content of a `.creds` file.")
    nkey: str | None = Field(None, description="The seed of a user's nkey.")
    bucket: str = Field(
        "",
        validation_alias=AliasChoices("bucket", "store"),
        description="The key-value bucket or object store.",
    )
    key: str = Field(
        "",
        validation_alias=AliasChoices("key", "object", "object_name"),
        description="The key, or the object's name; of `kv_keys` what keys begin with.",
    )
    value: Any = Field(
        None,
        validation_alias=AliasChoices("value", "data", "message", "payload"),
        description="What to store or send: text as it is, else as JSON.",
    )
    encoding: Literal["base64"] | None = Field(None, description="Of text that stands for bytes.")
    ttl: Time | None = Field(None, description="How long the key lives, from one second on.")
    revision: int | None = Field(
        None, ge=0, description="Get this one; put only where it is the newest."
    )
    create: bool = Field(True, description="Whether a missing bucket or consumer is made.")
    subject: str | None = Field(None, description="Where to publish, or what to read.")
    stream: str | None = Field(None, description="The stream.")
    seq: int | None = Field(
        None, ge=1, validation_alias=AliasChoices("seq", "sequence"), description="Of a message."
    )
    headers: dict[str, str] | None = Field(None, description="Headers of the message.")
    msg_id: str | None = Field(None, description="Instead of the id that we give the message.")
    consumer: str | None = Field(
        None,
        validation_alias=AliasChoices("consumer", "durable"),
        description="The durable consumer that reads; without it all is read from the beginning.",
    )
    batch: int = Field(10, ge=1, le=1000, description="Messages to read at the most.")
    ack: bool = Field(True, description="Whether what was read is acknowledged.")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take; of `js_consume` how long to wait for messages.",
    )
    timeout_ms: float | None = Field(None, gt=0, description="The same in milliseconds.")
    input: dict[str, Any] | None = Field(None, description="The same keys.")

    @model_validator(mode="before")
    @classmethod
    def _lift_input(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("input"), Mapping):
            return {**values["input"], **values}
        return values
