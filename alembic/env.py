"""Runs the migrations on the connection that ``app.store.migrations`` hands over."""

from __future__ import annotations

from alembic import context

from app.store.tables import SCHEMA, metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run through 'callboard db upgrade', which locks the database")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
# No transaction of its own: the caller's covers lock, schema and every revision at once.
context.run_migrations()
