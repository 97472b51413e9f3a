"""``python -m benchmarks.base [SUBJECT …]``: train the bases that the benchmarks erase from, and say how good they are."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from benchmarks.results_file import Row, read_rows, write_rows
from benchmarks.subjects import Subject, detector_of, prepare, subject, training_images
from erasediff.environment import configure_process
from erasediff.evaluate.features.opening import DetectorFeatures
from erasediff.evaluate.measure import SampleReader, retained_samples
from erasediff.evaluate.seeds import evaluation_key
from erasediff.evaluate.statistics import frechet_distance
from erasediff.files import publish_folder
from erasediff.logs import lines_to
from erasediff.models.training import new_base, train_base
from erasediff.progress import progress, shown_by


def train(subject: Subject) -> tuple[float, float]:
    """Train detector and base where they are missing; seconds of each."""
    from erasediff.data.datasets import load_dataset
    from erasediff.evaluate.real import real_images

    started = time.monotonic()
    detector_of(subject, real_images(load_dataset(subject.config.dataset), subject.config.dataset))
    detector_seconds, started = time.monotonic() - started, time.monotonic()
    assert subject.config.base_training is not None
    if not (subject.folder / "base").is_dir():
        images, labels, classes = training_images(subject)
        with (
            lines_to(sys.stderr) as lines,
            shown_by(lines),
            progress(f"training the base of {subject.name}", subject.config.base_training.steps) as done,
        ):
            fresh = new_base(subject.config, images.shape[1], images.shape[2], classes)
            base = train_base(fresh, images, labels, subject.config, torch.device("cpu"), lambda step, loss: done(step))

        def fill(folder: Path) -> str:
            base.save(folder)
            return "base"

        publish_folder(subject.folder, fill)
    return detector_seconds, time.monotonic() - started


def measure(subject: Subject, seconds: tuple[float, float]) -> Row:
    """Conditional accuracy and Fréchet distance of the base, beside those of real images."""
    ready = prepare(subject)
    real, detector, config = ready.real, ready.detector, subject.config
    n = subject.policy.retain.n_per_class
    made = retained_samples(
        SampleReader(detector, DetectorFeatures(detector)),
        ready.base.source(torch.device("cpu")),
        range(real.classes),
        n,
        evaluation_key(config.seed),
        config.sampler,
        "sampling the base",
    )
    reference = detector.look(real.holdout)[1]
    found, features = detector.look(real.train)
    rows = torch.linspace(0, len(features) - 1, min(len(features), len(made.labels))).long().numpy()
    row: Row = {
        "dataset": subject.name,
        "parameters": sum(p.numel() for p in ready.base.network.parameters()),
        "steps": config.base_training.steps if config.base_training else None,
        "detector_accuracy": round(float((found == real.train_labels).double().mean()), 4),
        "conditional_accuracy": round(float((made.found == made.labels).double().mean()), 4),
        "fd": round(frechet_distance(made.features, reference), 4),
        "fd_of_real_images": round(frechet_distance(features[rows], reference), 4),
        "detector_seconds": round(seconds[0], 1),
        "base_seconds": round(seconds[1], 1),
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Train and measure the subjects that are asked for, all by default; what was trained before keeps its seconds."""
    configure_process()
    torch.set_num_threads(1)
    rows = {str(row["dataset"]): row for row in read_rows("base")}
    for name in sys.argv[1:] or ("digits", "fashion-mnist"):
        asked = subject(name)
        known = (asked.folder / "base").is_dir() and asked.name in rows
        seconds = train(asked)
        if not known:
            rows[asked.name] = measure(asked, seconds)
    write_rows("base", list(rows.values()))


if __name__ == "__main__":
    main()
