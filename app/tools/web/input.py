"""What an ``http`` step asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.tools.times import Time

DEFAULT_TIMEOUT = 60.0


class Input(BaseModel):
    """``url`` and what to send there; the keys may also stand under ``spec``."""

    model_config = ConfigDict(populate_by_name=True)

    url: str = Field(
        validation_alias=AliasChoices("url", "endpoint"),
        min_length=1,
        description="Where to, with http:// or https://.",
    )
    method: str = Field("GET", pattern=r"^[A-Za-z]+$", description="The method, in any case.")
    headers: dict[str, Any] = Field(
        default_factory=dict,
        description="Headers; those that are null, or of the connection, are left out.",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Query parameters; those that are null are left out."
    )
    json_body: Any = Field(None, validation_alias="json", description="The body, as JSON.")
    body: Any = Field(None, description="The body: text as it is, else by content type.")
    payload: Any = Field(None, description="The same as body.")
    data: Any = Field(None, description="Query parameters or body, by method; or `{query, body}`.")
    form: dict[str, Any] | None = Field(None, description="The body, as fields of a form.")
    files: dict[str, Any] | list[Any] | None = Field(
        None,
        description="Files of a multipart form, by field: text, a reference, or `{filename, "
        "content, content_type, encoding: base64}`; form or data are its other fields.",
    )
    auth: Any = Field(None, description="The name of a credential, or its fields.")
    timeout: Time = Field(
        DEFAULT_TIMEOUT,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take in all: seconds, or text such as `30s`.",
    )
    verify: bool = Field(
        True,
        validation_alias=AliasChoices("verify_ssl", "verify"),
        description="Whether the certificate is checked.",
    )
    follow_redirects: bool = Field(True, description="Whether redirects are followed.")
    response_type: Literal["auto", "json", "text", "binary", "file"] | None = Field(
        None,
        description="What the answer is read as; `auto`: as its content type says; `file`: kept by "
        "reference, as all large answers are.",
    )
    save_as: str | None = Field(
        None, min_length=1, description="Keep the answer by reference, under this name."
    )

    @model_validator(mode="before")
    @classmethod
    def _lift_spec(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("spec"), Mapping):
            return {**values["spec"], **values}
        return values

    @field_validator(
        "headers", "params", mode="before", json_schema_input_type=dict[str, Any] | None
    )
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value
