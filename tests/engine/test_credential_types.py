"""Types of credentials: what fits, what does not, and which fields are secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.engine.credential_types import TYPES, check
from app.engine.credentials import Credential
from app.engine.masking import MASK
from app.errors import BadRequestError

KEY_FILE = {"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN KEY"}


@pytest.mark.parametrize("each", TYPES, ids=lambda each: each.names[0])
def test_its_schema_is_one_and_every_need_is_a_field(each: Any) -> None:
    Draft202012Validator.check_schema(each.schema())
    fields = {name for field in each.fields for name in field.names}
    assert {name for group in each.needs for name in group} <= fields


def test_no_name_means_two_types() -> None:
    names = [name.lower() for each in TYPES for name in each.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("postgres", {"host": "h", "port": 5432, "user": "u", "password": "p", "database": "d"}),
        ("postgres", {"db_host": "h", "db_port": "5432", "db_user": "u", "db_password": "p"}),
        ("PostgreSQL", {"url": "postgresql://u:p@h/d"}),
        ("http", {"base_url": "https://x"}),
        ("bearer", {"token": "t"}),
        ("httpBearerAuth", {"token": "t"}),
        ("bearer_token", {"bearer_token": "t"}),
        ("basic", {"username": "u", "password": "p"}),
        ("api_key", {"api_key": "k", "header_name": "X-Key"}),
        ("api_key", {"value": "k"}),
        ("nats", {"nats_url": "nats://h", "nats_user": "u", "nats_password": "p"}),
        ("snowflake", {"sf_account": "a", "sf_user": "u", "sf_password": "p"}),
        ("google_service_account", KEY_FILE),
        ("gcp", {"service_account_json": json.dumps(KEY_FILE)}),
        ("google_oauth", {"client_id": "c", "client_secret": "s", "refresh_token": "r"}),
        ("gcs", {"key_id": "k", "secret_key": "s"}),
        ("s3", {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region": "r"}),
        ("oauth2", {"token_url": "https://x", "client_id": "c", "client_secret": "s"}),
        ("vault", {"vault_addr": "https://v", "token": "t"}),
        ("aws", {"access_key_id": "k", "secret_access_key": "s"}),
        ("azure", {"tenant_id": "t", "client_id": "c", "client_secret": "s"}),
        ("azure", {"managed_identity": True}),
        ("kafka", {"bootstrap_servers": ["a:1", "b:1"]}),
        ("pubsub", {"project_id": "p"}),
        ("auth0", {"domain": "d", "client_id": "c"}),
        ("generic", {"anything": [1, {"goes": None}]}),
        ("weaviate", {"unknown types": "go too"}),
    ],
)
def test_what_fits(type_: str, data: dict[str, Any]) -> None:
    check(type_, data)


@pytest.mark.parametrize(
    ("type_", "data", "told"),
    [
        ("postgres", {"user": "u"}, "one of host, db_host"),
        ("postgres", {"host": "h", "port": "five"}, "port must be a whole number"),
        ("postgres", {"host": 7}, "host must be a text"),
        ("postgres", {"user": "h", "hsot": "h"}, "hsot is not known: is it host?"),
        ("basic", {"username": "u"}, "password is missing"),
        ("bearer", {"token": ""}, "token must be a text that is not empty"),
        ("oauth2", {"client_id": "c"}, "token_url"),
        ("azure", {"tenant_id": "t"}, "client_secret"),
        ("posgres", {"host": "h"}, "did you mean 'postgres'"),
        ("generics", {}, "did you mean 'generic'"),
    ],
)
def test_what_does_not_fit(type_: str, data: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        check(type_, data)
    assert told in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("type_", "data", "secrets"),
    [
        pytest.param(
            "postgres",
            {"db_host": "h.example", "db_password": "pa55word", "port": 5432},
            {"pa55word"},
            id="by the schema",
        ),
        pytest.param("nats", {"url": "nats://u:p@h", "user": "me"}, {"nats://u:p@h"}, id="a url"),
        pytest.param("basic", {"username": "me", "pin": 12345}, {"12345"}, id="not in the schema"),
        pytest.param("vault", {"url": "https://v", "token": "t0ken"}, {"t0ken"}, id="its own url"),
        pytest.param("", {"token": "t0ken", "region": "eu"}, {"t0ken"}, id="without a type"),
        pytest.param(
            "generic", {"a": {"password": "x1"}, "b": ["y1", True, None]}, {"x1", "y1"}, id="nested"
        ),
        pytest.param(
            "gcp",
            {"service_account_json": json.dumps(KEY_FILE)},
            {json.dumps(KEY_FILE), "-----BEGIN KEY"},
            id="a key file as text",
        ),
        pytest.param(
            "basic", {"username": "admin", "password": "admin"}, set(), id="what is public anyway"
        ),
    ],
)
def test_secret_values(type_: str, data: dict[str, Any], secrets: set[str]) -> None:
    assert Credential("c", type_, data).secrets() - {"service_account"} == secrets


def test_what_is_shown_has_no_secret() -> None:
    data = {
        "db_host": "h",
        "password": "p4ss",
        "extra": {"key": [1, "k3y"]},
        "ssl": True,
        "n": None,
    }
    shown = Credential("c", "postgres", data).shown()
    masked = {"key": ["***", "***"]}
    assert shown == {"db_host": "h", "password": "***", "extra": masked, "ssl": True, "n": None}


def test_data_is_not_in_its_text_form() -> None:
    assert "p4ss" not in repr(Credential("c", "postgres", {"password": "p4ss"}))


def test_a_login_in_an_address_that_may_be_shown_is_secret() -> None:
    data = {"token": "canary-token", "base_url": "https://me:canary%2Flogin@api.example/v1"}
    credential = Credential("c", "bearer", data)
    assert credential.shown() == {"token": MASK, "base_url": f"https://me:{MASK}@api.example/v1"}
    assert credential.secrets() == {"canary-token", "canary%2Flogin", "canary/login"}
