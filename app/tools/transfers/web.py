"""An HTTP answer as a source: records in JSON, or rows in NDJSON or CSV, which are streamed."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import orjson

from app.errors import ToolError
from app.tools import Context
from app.tools.transfers.job import Column, Job, Stream
from app.tools.transfers.records import at, columns_of, rows_of
from app.tools.transfers.stream import lines, pieces
from app.tools.web.exchange import exchange, shown
from app.tools.web.input import Input
from app.tools.web.request import build
from app.tools.web.status import failure

#: An error's answer is kept up to so many bytes.
_SHOWN = 65_536
#: A line of a stream may have so many bytes.
_LONGEST = 16 << 20
_TYPES = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "text/csv": "csv",
    "application/csv": "csv",
}


@dataclass(frozen=True, slots=True)
class WebSource:
    """The records at *data_path* of an answer, or each line of it. A single mapping is one record.

    The columns are those of the mapping, else the fields of the first records.
    """

    request: Input
    data_path: str | None = None
    form: str | None = None

    @contextmanager
    def opened(self, job: Job) -> Iterator[Stream]:
        asked = build(self.request, job.context)
        timed = "timeout" in self.request.model_fields_set
        limit = min(asked.manner.timeout, job.timeout) if timed else job.timeout
        manner = replace(asked.manner, timeout=limit)
        with exchange(asked.message, job.context, manner) as response:
            if not response.is_success:
                raise failure(asked.message, response, _beginning(response))
            records = self._records(response, job.context)
            first = list(itertools.islice(records, job.chunk))
            yield _stream(first, records, job)

    def _records(self, response: httpx2.Response, context: Context) -> Iterator[Any]:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        form = (self.form or _TYPES.get(kind, "json")).lower()
        if form == "csv":
            return _csv(response)
        if form in {"ndjson", "jsonl"}:
            return (self._at(record) for record in _ndjson(response))
        if form != "json":
            raise ToolError(
                f"source: format {form!r} cannot be read; say json, ndjson or csv", kind="schema"
            )
        return self._json(response, context.settings.result_bytes)

    def _json(self, response: httpx2.Response, limit: int) -> Iterator[Any]:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > limit:
                raise ToolError(
                    f"source: {shown(response.url)} answered with more than the {limit} bytes of "
                    "JSON that fit in memory; ask for pages, or for NDJSON or CSV, which are "
                    "streamed",
                    kind="resource",
                )
        found = self._at(_loaded(bytes(content), response))
        return iter(found if isinstance(found, list) else [found])

    def _at(self, data: Any) -> Any:
        if not self.data_path:
            return data
        found = at(data, self.data_path)
        if found is None:
            known = f"; there is {', '.join(map(str, data))}" if isinstance(data, Mapping) else ""
            raise ToolError(
                f"source: data_path {self.data_path!r} leads to nothing{known}", kind="schema"
            )
        return found


def _stream(first: list[Any], rest: Iterator[Any], job: Job) -> Stream:
    everything = itertools.chain(first, rest)
    if job.mapping:
        mapping = job.mapping
        names = list(mapping)
        rows: Iterable[list[Any]] = (
            [_found(record, mapping[name]) for name in names] for record in everything
        )
    else:
        names = columns_of(first)
        if first and not names:
            raise ToolError(
                "source: the records are no mappings; say which column is where with mapping",
                kind="schema",
            )
        rows = rows_of(everything, names)
    sample = [[_found(record, path) for record in first] for path in _paths(names, job.mapping)]
    columns = [Column(name, _kind(values)) for name, values in zip(names, sample, strict=True)]
    return Stream(columns, pieces(lines(rows), job.chunk))


def _paths(names: list[str], mapping: Mapping[str, str] | None) -> list[str]:
    return [mapping[name] for name in names] if mapping else names


def _found(record: Any, path: str) -> Any:
    if isinstance(record, Mapping) and path in record:
        return record[path]
    return at(record, path)


def _kind(values: list[Any]) -> str:
    """The DuckDB type that holds all of *values*."""
    types = {type(value) for value in values if value is not None}
    for kind, members in (
        ("BOOLEAN", {bool}),
        ("BIGINT", {int}),
        ("DOUBLE", {int, float}),
        ("JSON", {dict, list}),
    ):
        if types and types <= members:
            return kind
    return "VARCHAR"


def _csv(response: httpx2.Response) -> Iterator[Any]:
    # Nothing between two commas is null: as text it would fit no number.
    reader = csv.DictReader(
        (line.decode("utf-8-sig" if number == 0 else "utf-8", "replace") + "\n"
         for number, line in enumerate(_lines(response))),
        restkey="…",
    )  # fmt: skip
    for record in reader:
        if "…" in record:
            raise ToolError(
                f"source: line {reader.line_num} has more values than the header has names",
                kind="parse",
            )
        yield {name: value or None for name, value in record.items()}


def _ndjson(response: httpx2.Response) -> Iterator[Any]:
    for number, line in enumerate(_lines(response), 1):
        if line.strip():
            yield _loaded(line, response, f"line {number} of ")


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    waiting = b""
    for piece in response.iter_bytes():
        *complete, waiting = (waiting + piece).split(b"\n")
        yield from complete
        if len(waiting) > _LONGEST:
            raise ToolError(
                f"source: {shown(response.url)} answered with a line of more than {_LONGEST} bytes",
                kind="resource",
            )
    if waiting:
        yield waiting


def _loaded(text: bytes, response: httpx2.Response, where: str = "") -> Any:
    try:
        return orjson.loads(text)
    except ValueError as exc:
        raise ToolError(
            f"source: {where}the answer of {shown(response.url)} is not JSON: {exc}", kind="parse"
        ) from exc


def _beginning(response: httpx2.Response) -> str:
    content = b""
    for piece in response.iter_bytes():
        content += piece
        if len(content) >= _SHOWN:
            break
    return content[:_SHOWN].decode("utf-8", "replace")
