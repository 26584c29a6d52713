"""DuckDB from the side of steps: databases, secrets, results."""
