"""The store "published models": graphs published for pods."""

from __future__ import annotations

from erasediff.evidence.purge.places import place_for
from erasediff.evidence.purge.store import Listing, Store
from erasediff.evidence.purge.survey import Subject, Survey
from erasediff.records.core import RollOutRecord
from erasediff.records.settings import RollOutSettings


def published_store(subject: Subject, found: Survey, settings: RollOutSettings) -> Store:
    """Revoked graphs in every place that roll-outs published to."""

    def look() -> Listing:
        gone = [digest for digest in found.plan.revoked if digest not in found.staying]
        places = [(root, place_for(f"{root}/{digest}", root)) for root in _roots(subject, settings) for digest in gone]
        return Listing(tuple(item for _, place in places for item in place.items()))

    return Store("published models", look, "listed every publishing address again, with all versions")


def _roots(subject: Subject, settings: RollOutSettings) -> list[str]:
    """Where graphs were published, by the records and the current settings. A graph lies at ``ROOT/<its digest>/<its manifest's digest>``."""
    records = [record for run in subject.run.workdir.attempts() if (record := run.find(RollOutRecord)) is not None and record.uri]
    roots = {record.uri.rstrip("/").rsplit("/", 2)[0] for record in records}
    if settings.backend != "none" and settings.publish_to:
        roots.add(settings.publish_to.rstrip("/"))
    return sorted(roots)
