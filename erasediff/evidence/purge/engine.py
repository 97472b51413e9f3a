"""List, delete and list again, the same for every store. It may be killed between any two deletions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from erasediff.errors import EraseDiffError
from erasediff.evidence.purge.store import Listing, PurgeItem, Store
from erasediff.records.purging import MAX_REASON, Action, PurgeLine, Seen, StoreName, Unfinished

Keep = Callable[[tuple[Seen, ...]], None]
"""Saves what was found before anything is deleted."""
NOTHING = "nothing of this request"


@dataclass(frozen=True)
class Purged:
    """The result of purging stores."""

    lines: tuple[PurgeLine, ...]
    unfinished: tuple[Unfinished, ...]


def purge_stores(stores: Sequence[Store], seen: tuple[Seen, ...], keep: Keep) -> Purged:
    """Purge stores in order. If one fails, the others go on, except those that need it.

    Args:
        stores: the stores, in the order of deletion.
        seen: what earlier runs of this purge found.
        keep: see :data:`Keep`.
    """
    lines: list[PurgeLine] = []
    unfinished: list[Unfinished] = []
    for store in stores:
        waits = [entry.store for entry in unfinished if entry.store in store.needs]
        if waits:
            unfinished.append(Unfinished(store=store.name, reason=f"it is not purged before the store '{waits[0]}'."))
            continue
        try:
            listing = store.look()
            seen = most(seen, store.name, listing)
            keep(seen)
            _purge(store, listing)
            lines += _lines(store, seen, listing)
        except (EraseDiffError, OSError) as error:
            unfinished.append(Unfinished(store=store.name, reason=_reason(error)))
    return Purged(tuple(lines), tuple(unfinished))


def preview_stores(stores: Sequence[Store]) -> Purged:
    """List what a purge would find, without changing anything."""
    lines: list[PurgeLine] = []
    unfinished: list[Unfinished] = []
    for store in stores:
        try:
            listing = store.look()
            lines += _lines(store, most((), store.name, listing), listing)
        except (EraseDiffError, OSError) as error:
            unfinished.append(Unfinished(store=store.name, reason=_reason(error)))
    return Purged(tuple(lines), tuple(unfinished))


def most(seen: tuple[Seen, ...], name: StoreName, listing: Listing) -> tuple[Seen, ...]:
    """The highest number ever found of each kind: a purge only deletes, so the first complete listing found all."""
    counts: dict[tuple[StoreName, str, Action], int] = {(entry.store, entry.what, entry.action): entry.count for entry in seen}
    for (what, action), count in _counted(listing.items).items():
        counts[name, what, action] = max(count, counts.get((name, what, action), 0))
    return tuple(Seen(store=store, what=what, action=action, count=count) for (store, what, action), count in counts.items())


def remove(item: PurgeItem) -> None:
    """Remove one item."""
    item.remove()


def _purge(store: Store, listing: Listing) -> None:
    """Delete the listed items, and list the store again.

    Raises:
        EraseDiffError: the store refuses, does not answer, or still holds items.
    """
    for item in listing.items:
        remove(item)
    if not listing.items:
        return
    left = _counted(store.look().items)
    if left:
        (what, _), count = left.most_common(1)[0]
        raise EraseDiffError(f"{sum(left.values())} items still exist after the deletion ({count} of them {what}): run the purge again.")


def _counted(items: Sequence[PurgeItem]) -> Counter[tuple[str, Action]]:
    return Counter((item.what, item.action) for item in items)


def _lines(store: Store, seen: tuple[Seen, ...], listing: Listing) -> list[PurgeLine]:
    now = datetime.now(UTC).replace(microsecond=0)
    own = [entry for entry in seen if entry.store == store.name]
    gone = [PurgeLine(store=store.name, what=e.what, action=e.action, count=e.count, verified=store.proof, at=now) for e in own]
    kept = [PurgeLine(store=store.name, what=k.what, action="kept", count=k.count, verified=k.reason, at=now) for k in listing.kept if k.count]
    return [*(gone or [PurgeLine(store=store.name, what=NOTHING, action="deleted", count=0, verified=store.proof, at=now)]), *kept]


def _reason(error: EraseDiffError | OSError) -> str:
    """One sentence; disk errors are reported without their paths, which may hold personal names."""
    said = (
        str(error) if isinstance(error, EraseDiffError) else f"the disk refused ({error.strerror or type(error).__name__}): check it and run again."
    )
    return said[:MAX_REASON]
