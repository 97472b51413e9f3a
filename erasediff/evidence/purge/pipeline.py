"""The store "pipeline artifacts": leftovers of killed local pipeline runs, and the runs on Kubeflow, which are listed and kept.

A run that ends removes its folder. On a cluster, Kubeflow's artifacts lie under its pipeline root; the operator can name them in purge.places.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import read_kubeflow_runs
from erasediff.attempts.workdir import LAUNCH_PREFIX, Workdir
from erasediff.evidence.purge.folder import folder_items
from erasediff.evidence.purge.store import Kept, Listing, Store
from erasediff.files import is_in_use

KFP_PREFIX = "erasediff-kfp-"
"""The prefix of the folders that ``pipelines/local.py`` gives to kfp."""

_KEPT = "they are Kubeflow's own: delete the run there, and its logs in Kubeflow's bucket"


def pipeline_store(workdir: Workdir, attempts: Iterable[Attempt]) -> Store:
    """Unused folders of local pipeline runs; the runs of Kubeflow that worked on these attempts are named, since no purge reaches them."""
    runs = list(dict.fromkeys(run for attempt in attempts for run in read_kubeflow_runs(attempt)))

    def look() -> Listing:
        temporary = Path(tempfile.gettempdir())
        folders = [*_own(workdir.root, LAUNCH_PREFIX), *_own(temporary, KFP_PREFIX)]
        busy = [folder for folder in folders if is_in_use(folder)]
        items = [item for folder in folders if folder not in busy for item in folder_items(folder, "files of pipeline runs", folder.parent)]
        kept = Kept("folders of pipeline runs", len(busy), "a current run uses them, and removes them at its end")
        return Listing(tuple(items), (kept, *(Kept(f"parameters, metadata and logs of run {run} on Kubeflow Pipelines", 1, _KEPT) for run in runs)))

    return Store("pipeline artifacts", look, "searched again for folders of pipeline runs")


def _own(parent: Path, prefix: str) -> list[Path]:
    found = sorted(path for path in parent.glob(f"{prefix}*") if path.is_dir() and not path.is_symlink())
    return [path for path in found if path.stat().st_uid == os.getuid()]
