"""Postgres and NATS that came with ``pip install``: started as our children, stopped with us."""
