"""Which keys the sealed texts need, and their way from one key to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.engine.custody import SealedRow, SealedRows, Sealer, SealError
from app.errors import StartupError

BATCH = 100
#: A row that changes meanwhile is met again; servers that still seal with the old key never end that.
PASSES = 3


@dataclass(frozen=True, slots=True)
class Rotation:
    """How it went: rows now under key ``key_id`` because of it, and those that are under others.

    ``damaged`` says of each row that cannot be opened what is wrong with it.
    """

    key_id: str
    renewed: int
    left: int
    damaged: tuple[str, ...] = ()


def check_keys(rows: SealedRows, sealer: Sealer) -> None:
    """Raise ``StartupError`` that names the keys that *sealer* lacks for what is stored."""
    lacking = {key: count for key, count in rows.key_ids().items() if key not in sealer.key_ids}
    if lacking:
        names = ", ".join(f"{key!r} ({count} rows)" for key, count in sorted(lacking.items()))
        raise StartupError(
            f"the database holds what was sealed with keys that are not configured: {names}",
            remedy="configure them in CALLBOARD_ENCRYPTION_KEYS, NOETL_ENCRYPTION_KEY or "
            "encryption.keys of the home; or delete what they sealed",
        )


def rotated(rows: SealedRows, sealer: Sealer, told: Callable[[int], None]) -> Rotation:
    """Seal every row with the key that seals now; ``told(renewed)`` after each batch.

    Each row goes over by itself, so that it may be interrupted and repeated at any moment, and
    servers may work meanwhile. Raises ``SealError`` where there is no key.
    """
    key_id = sealer.sealing
    renewed, damaged = 0, dict[str, str]()
    for _ in range(PASSES):
        left = 0
        for batch in _batches(rows, key_id):
            changes = list(_renewals(batch, sealer, damaged))
            done = rows.replace(changes)
            renewed, left = renewed + done, left + len(changes) - done
            told(renewed)
        if not left:
            break
    return Rotation(key_id, renewed, left + len(damaged), tuple(damaged.values()))


def _batches(rows: SealedRows, key_id: str) -> Iterator[Sequence[SealedRow]]:
    for table in rows.tables:
        after: int | str | None = None
        while batch := rows.under_other_keys(table, key_id, after=after, limit=BATCH):
            yield batch
            after = batch[-1].key


def _renewals(
    batch: Sequence[SealedRow], sealer: Sealer, damaged: dict[str, str]
) -> Iterator[tuple[SealedRow, str]]:
    """Each row of *batch* with its new text; what is wrong with the others goes to *damaged*."""
    for row in batch:
        try:
            yield row, sealer.renew(row.sealed, row.about)
        except SealError as exc:
            damaged[row.about] = str(exc)
