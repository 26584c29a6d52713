"""Postgres from the side of steps: connections, statements, rows."""
