"""What each type of credential holds, and which of its fields are secret: JSON Schemas.

``writeOnly`` marks a secret field. Fields beside those listed are kept as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.errors import BadRequestError

#: How alike an unknown type must be to a known one to be refused as a slip; and how alike a field
#: is to a missing one to be asked about.
ALIKE, ASKED = 0.8, 0.7
_WORDS: dict[str, Any] = {
    "text": {"type": "string", "minLength": 1},
    "number": {
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+$"}]
    },
    "json": {"type": ["object", "string"], "minLength": 1},
    "texts": {"type": ["string", "array"], "items": {"type": "string"}},
    "flag": {"type": ["boolean", "string"]},
}
_SAID = {
    "text": "a text that is not empty",
    "number": "a whole number",
    "json": "a JSON object or its text",
    "texts": "a text or a list of texts",
    "flag": "true or false",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field under its names, the recommended one first."""

    names: tuple[str, ...]
    secret: bool = False
    form: str = "text"


def _open(*names: str, form: str = "text") -> Field:
    return Field(names, form=form)


def _secret(*names: str, form: str = "text") -> Field:
    return Field(names, secret=True, form=form)


@dataclass(frozen=True, slots=True)
class CredentialType:
    """A type under its names. Of each group of field names in *needs* one must be given."""

    names: tuple[str, ...]
    about: str
    fields: tuple[Field, ...]
    needs: tuple[tuple[str, ...], ...] = ()

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its data."""
        properties = {
            name: {**_WORDS[field.form], **({"writeOnly": True} if field.secret else {})}
            for field in self.fields
            for name in field.names
        }
        groups = [{"anyOf": [{"required": [name]} for name in group]} for group in self.needs]
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.names[0],
            "description": self.about,
            "type": "object",
            "properties": properties,
            **({"allOf": groups} if groups else {}),
        }

    def secrecy(self) -> dict[str, bool]:
        """Whether each of its fields is secret, by every name in lower case."""
        return {name.lower(): field.secret for field in self.fields for name in field.names}

    def needed_names(self) -> tuple[str, ...]:
        """The recommended names of what must be given."""
        return tuple(group[0] for group in self.needs)


_HOST = _open("host", "db_host", "server")
_PORT = _open("port", "db_port", form="number")
_USER = _open("user", "db_user", "username", "login")
_PASSWORD = _secret("password", "db_password")
_DATABASE = _open("database", "db_name", "dbname", "db")
_URL = _secret("url", "dsn", "connection_string", "database_url", "value")
_SCOPES = _open("scopes", "scope", form="texts")
_BEARER = _secret("token", "bearer_token", "access_token", "value")
_API_KEY = _secret("api_key", "key", "token", "value")
_HEADER = _open("header_name", "header")
_CLIENT_ID = _open("client_id")
_CLIENT_SECRET = _secret("client_secret")
_TOKEN_URL = _open("token_url", "endpoint", "token_endpoint")
_ENDPOINT = _open("endpoint", "endpoint_url")
_REGION = _open("region", "region_name", "aws_region")
_ACCOUNT_KEY = (
    _open("client_email"),
    _open("private_key_id"),
    _secret("private_key"),
    _open("project_id", "project"),
    _open("token_uri"),
    _secret(
        "service_account", "service_account_json", "service_account_info",
        "service_account_key", "credentials_json", form="json",
    ),
)  # fmt: skip
_ACCESS_ID = _open("access_key_id", "aws_access_key_id", "key_id", "access_key")
_ACCESS_SECRET = _secret("secret_access_key", "aws_secret_access_key", "secret_key", "secret")

TYPES = (
    CredentialType(
        ("postgres", "postgresql", "pg"),
        "A Postgres database: host, user, password and database, or a url.",
        (_HOST, _PORT, _USER, _PASSWORD, _DATABASE, _open("sslmode"), _open("db_schema", "schema"),
         _URL),
        ((*_HOST.names, *_URL.names),),
    ),
    CredentialType(
        ("bearer", "bearer_token", "httpBearerAuth"),
        "A token sent as Authorization: Bearer.",
        (_BEARER, _open("base_url")),
        (_BEARER.names,),
    ),
    CredentialType(
        ("http",),
        "What a web service asks for: a token, an api_key, or a user and password.",
        (_BEARER, _secret("api_key", "key"), _USER, _secret("password"), _HEADER,
         _open("base_url")),
    ),
    CredentialType(
        ("basic", "httpBasicAuth"),
        "A user name and a password.",
        (_open("username", "user", "login"), _secret("password")),
        (("username", "user", "login"), ("password",)),
    ),
    CredentialType(
        ("api_key", "apikey", "header"),
        "A key sent in a header, or in the query.",
        (_API_KEY, _HEADER, _open("param_name"), _open("in")),
        (_API_KEY.names,),
    ),
    CredentialType(
        ("nats",),
        "A NATS server, with a user and password, a token, an nkey seed or a credentials file.",
        (_secret("url", "nats_url", "servers", form="texts"), _open("user", "nats_user", "username"),
         _secret("password", "nats_password"), _secret("token", "nats_token"),
         _secret("nkey_seed", "seed"), _secret("creds", "credentials", "jwt")),
        (("url", "nats_url", "servers"),),
    ),
    CredentialType(
        ("snowflake",),
        "A Snowflake account, with a password or a private key.",
        (_open("account", "sf_account"), _open("user", "sf_user", "username"),
         _secret("password", "sf_password"), _secret("private_key", "sf_private_key"),
         _secret("private_key_passphrase", "sf_private_key_passphrase"),
         _open("warehouse", "sf_warehouse"), _open("database", "sf_database"),
         _open("schema", "sf_schema"), _open("role", "sf_role")),
        (("account", "sf_account"), ("user", "sf_user", "username"),
         ("password", "sf_password", "private_key", "sf_private_key")),
    ),
    CredentialType(
        ("google_service_account", "gcp", "google_oauth", "serviceAccount", "gcp_service_account"),
        "A Google service account (the fields of its key file, or the file), or OAuth credentials.",
        (*_ACCOUNT_KEY, _CLIENT_ID, _CLIENT_SECRET, _secret("refresh_token"),
         _secret("access_token", "token"), _SCOPES),
        (("private_key", *_ACCOUNT_KEY[-1].names, "refresh_token", "access_token", "token"),),
    ),
    CredentialType(
        ("gcs_hmac", "gcs", "s3", "hmac", "s3_hmac"),
        "A key pair of an object store: its HMAC id and secret, or for gcs a service account.",
        (_ACCESS_ID, _ACCESS_SECRET, _REGION, _ENDPOINT, _open("bucket"), _open("scope"),
         _secret("session_token", "aws_session_token"), *_ACCOUNT_KEY),
        ((*_ACCESS_SECRET.names, "private_key", *_ACCOUNT_KEY[-1].names),),
    ),
    CredentialType(
        ("oauth2", "oauth2_client_credentials", "client_credentials"),
        "An OAuth 2 client: where its tokens come from, its id and its secret.",
        (_TOKEN_URL, _CLIENT_ID, _CLIENT_SECRET, _secret("refresh_token"), _SCOPES,
         _open("audience"), _open("grant_type")),
        (_TOKEN_URL.names, ("client_id",), ("client_secret", "refresh_token")),
    ),
    CredentialType(
        ("vault", "hashicorp_vault"),
        "A HashiCorp Vault, with a token, an AppRole or a Kubernetes role.",
        (_open("address", "vault_addr", "url", "addr", "endpoint"), _secret("token", "vault_token"),
         _open("role_id"), _secret("secret_id"), _open("role", "kubernetes_role"),
         _open("namespace"), _open("mount", "mount_point")),
        (("address", "vault_addr", "url", "addr", "endpoint"),
         ("token", "vault_token", "secret_id", "role", "kubernetes_role")),
    ),
    CredentialType(
        ("aws",),
        "An AWS access key.",
        (_ACCESS_ID, _ACCESS_SECRET, _secret("session_token", "aws_session_token"), _REGION,
         _ENDPOINT, _open("role_arn"), _open("profile")),
        ((*_ACCESS_ID.names, "role_arn", "profile"),),
    ),
    CredentialType(
        ("azure",),
        "An Azure application: tenant, client id and client secret.",
        (_open("tenant_id", "tenant"), _CLIENT_ID, _CLIENT_SECRET,
         _open("vault_url", "key_vault_url"), _open("authority"), _open("managed_identity", form="flag")),
        (("client_secret", "managed_identity"),),
    ),
    CredentialType(
        ("kafka",),
        "A Kafka cluster.",
        (_open("bootstrap_servers", "brokers", "hosts", form="texts"),
         _open("security_protocol"), _open("sasl_mechanism"),
         _open("sasl_username", "username", "user"), _secret("sasl_password", "password"),
         _secret("ssl_key"), _secret("ssl_key_password")),
        (("bootstrap_servers", "brokers", "hosts"),),
    ),
    CredentialType(
        ("pubsub",),
        "Google Pub/Sub: a project, and a service account.",
        (*_ACCOUNT_KEY, _SCOPES),
        (("project_id", "project", *_ACCOUNT_KEY[-1].names),),
    ),
    CredentialType(
        ("auth0",),
        "An Auth0 application.",
        (_open("domain", "auth0_domain"), _open("client_id", "auth0_client_id"),
         _secret("client_secret", "auth0_client_secret"), _open("audience"), _SCOPES),
        (("domain", "auth0_domain"), ("client_id", "auth0_client_id")),
    ),
)  # fmt: skip

#: The type without a schema: anything, and all of it secret but fields with well-known names.
GENERIC = "generic"
_BY_NAME = {name.lower(): each for each in TYPES for name in each.names}


def type_named(name: str) -> CredentialType | None:
    """The type of that name; None for ``generic`` and for types that nobody here knows."""
    return _BY_NAME.get(name.lower())


@cache
def secrecy_of(name: str) -> Mapping[str, bool]:
    """Whether each field of that type is secret, by lower-case name; empty for unknown types."""
    found = type_named(name)
    return found.secrecy() if found else {}


def check(name: str, data: Mapping[str, Any]) -> None:
    """Raise ``BadRequestError`` where *data* is no credential of that type; values are not told."""
    found = type_named(name)
    if found is None:
        _check_type(name)
        return
    # Imported late: it takes a moment, and only adding a credential needs it.
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(found.schema()).iter_errors(dict(data))
    complaints = sorted({_complaint(found, error, data) for error in errors})
    if complaints:
        names = ", ".join(field.names[0] for field in found.fields)
        raise BadRequestError(
            f"this is no credential of type {name!r}: {'; '.join(complaints)}",
            remedy=f"its fields are {names}; see 'callboard credential types {found.names[0]}'",
        )


def _check_type(name: str) -> None:
    near = difflib.get_close_matches(name.lower(), [*_BY_NAME, GENERIC], n=1, cutoff=ALIKE)
    if near and name.lower() != GENERIC:
        raise BadRequestError(
            f"there is no credential type {name!r}; did you mean {near[0]!r}?",
            remedy="see 'callboard credential types', or use 'generic'",
        )


def _complaint(found: CredentialType, error: Any, data: Mapping[str, Any]) -> str:
    if error.absolute_path:
        name = str(error.absolute_path[0])
        form = next(field.form for field in found.fields if name in field.names)
        return f"{name} must be {_SAID[form]}"
    names = [choice["required"][0] for choice in error.validator_value]
    unknown = [str(name) for name in data if str(name).lower() not in found.secrecy()]
    near = _near(names, unknown)
    said = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return f"{said} is missing" + (f" ({near[0]} is not known: is it {near[1]}?)" if near else "")


def _near(names: Iterable[str], unknown: Iterable[str]) -> tuple[str, str] | None:
    for given in unknown:
        match = difflib.get_close_matches(given.lower(), list(names), n=1, cutoff=ASKED)
        if match:
            return given, match[0]
    return None
