"""The event log, catalog and runtime registry on Postgres, and their twins in memory."""
