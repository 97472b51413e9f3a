"""``python -m benchmarks.load``: a server at twice what it can do, for ten minutes: statuses, latencies and memory into ``results/load.json``.

Requests arrive by the clock and not when others are answered, so that the queue is always full.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from benchmarks.client import Client, serving
from benchmarks.results_file import ROOT, Row, write_rows
from benchmarks.serve import BATCH, LABEL, Solver, export
from benchmarks.subjects import prepare, subject

CLIENTS = 96
WARM_SECONDS = 60
SETTLED = 5
"""Looks at the memory at the beginning and at the end, whose medians are compared."""


def capacity(client: Client) -> float:
    """Images a second with full batches."""
    client.many(2 * BATCH, 2, LABEL)
    started = time.perf_counter()
    client.many(2 * BATCH, 8, LABEL)
    return 2 * BATCH * 8 / (time.perf_counter() - started)


def hold(client: Client, rate: float, seconds: float) -> Row:
    """Ask at a rate for a while; every ten seconds the memory is looked at."""
    statuses: Counter[int] = Counter()
    served: list[float] = []
    lost: list[str] = []
    turn, lock = iter(range(10**9)), threading.Lock()
    began = time.perf_counter()

    def ask() -> None:
        while True:
            with lock:
                number = next(turn)
            due = began + number / rate
            if due - began > seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                status, took = client.ask(LABEL, number)
            except OSError as error:
                with lock:
                    lost.append(type(error).__name__)
                continue
            with lock:
                statuses[status] += 1
                if status == 200:
                    served.append(took)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    memory: list[float] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(10)
        if time.perf_counter() - began > min(WARM_SECONDS, seconds / 4):
            memory.append(client.rss_mb())
    first, last = statistics.median(memory[:SETTLED]), statistics.median(memory[-SETTLED:])
    return {
        "seconds": round(time.perf_counter() - began),
        "asked_per_s": round((sum(statuses.values()) + len(lost)) / (time.perf_counter() - began), 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "unanswered": len(lost),
        "served_per_s": round(statuses[200] / seconds, 1),
        "p50_ms": round(1000 * float(np.quantile(served, 0.5)), 1),
        "p99_ms": round(1000 * float(np.quantile(served, 0.99)), 1),
        "rss_mb": [round(first, 1), round(last, 1)],
        "rss_drift": round(last / first - 1, 4),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ready = prepare(subject("digits"))
    with tempfile.TemporaryDirectory(prefix="erasediff-bench-") as folder:
        export(ready, Path(folder) / "onnx", Solver("dpm-solver++", 10, 0.0))
        with serving(ROOT, Path(folder) / "onnx", "--max-batch", BATCH, "--max-waiting", 2 * BATCH) as client:
            able = capacity(client)
            print(f"{able:.1f} images a second", flush=True)
            write_rows("load", [{"capacity_per_s": round(able, 1), **hold(client, 2 * able, asked.seconds)}])


if __name__ == "__main__":
    main()
