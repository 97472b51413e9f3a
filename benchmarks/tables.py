"""``python -m benchmarks.tables``: write the tables of README and docs from the result files, between their markers."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.rates import best
from benchmarks.results_file import ROOT, Row, read_rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured_at(rows: list[Row]) -> str:
    commits, cores, dates = ({str(row[key]) for row in rows} for key in ("commit", "cores", "date"))
    return f"Measured at commit {', '.join(sorted(commits))} on {', '.join(sorted(cores))} cores, {', '.join(sorted(dates))}."


def demo_table(rows: list[Row]) -> str:
    """One line a label and seed."""
    header = [
        "label",
        "seed",
        "verdict",
        "detections before → after, of 1,000",
        "upper bound",
        "in ONNX",
        "retained accuracy",
        "lower bound of change",
    ]
    header += ["Fréchet distance", "upper bound of change"]
    lines = [
        [
            str(row["label"]),
            str(row["seed"]),
            str(row["verdict"]),
            f"{row['base_detections']} → {row['detections']}",
            f"{100 * row['upper']:.2f} %",
            str(row["onnx_detections"]),
            f"{_percent(row['accuracy_base'])} → {_percent(row['accuracy_erased'])}",
            f"{100 * row['accuracy_lower']:.1f} pp",
            f"{row['fd_base']:.3f} → {row['fd_erased']:.3f}",
            f"{100 * row['fd_change_upper']:+.0f} %",
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `python -m benchmarks.demo` measures it again."


def targets_table(rows: list[Row]) -> str:
    """One line a target, one column a label: detections of 1,000, bold where the gate says PASS."""
    labels = sorted({row["label"] for row in rows})
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        found = {row["label"]: row for row in rows if row["target"] == target}
        counts = {c: "diverged" if found[c]["verdict"] == "diverged" else f"{1000 * (1 - found[c]['ua']):.0f}" for c in labels}
        passing = [c for c in labels if found[c]["verdict"] == "PASS"]
        cells = [f"**{counts[c]}**" if c in passing else counts[c] for c in labels]
        passed = len(passing)
        lines.append([f"`{target}`", *cells, f"{passed} of {len(labels)}"])
    table = _table(["target", *map(str, labels), "PASS"], lines)
    return f"{table}\n\n{_measured_at(rows)} `python -m benchmarks.targets` measures it again."


def timing_table(rows: list[Row]) -> str:
    """One line a step."""
    lines = [[str(row["step"]), f"{row['seconds']:.0f} s"] for row in rows]
    return f"{_table(['step', 'time'], lines)}\n\n{_measured_at(rows)} `python -m benchmarks.timing WORKDIR` measures it again."


def step_table(rows: list[Row]) -> str:
    """One line a kind of step."""
    header = ["step", "forwards", "backwards", "CPU time over that of its bare passes", "median time", "300 steps, with what comes before"]
    lines = [
        [
            str(row["target"]),
            str(row["forwards"]),
            str(row["backwards"]),
            f"{row['step_over_floor']:.2f}",
            f"{row['step_ms']:.0f} ms",
            f"{(row['prepare_ms'] + 300 * row['step_ms']) / 1000:.1f} s",
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `python -m benchmarks.step` measures it again."


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else math.nan


def _or_never(value: float, unit: str) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}{unit}"


def erase_table(rows: list[Row]) -> str:
    """One line a dataset and method, over all labels and seeds; the base of each dataset first."""
    header = ["dataset", "method", "PASS", "UA, worst", "retained accuracy, mean change", "Fréchet distance, mean change"]
    header += ["forwards", "backwards", "time", "time to the gate", "peak memory", "S50"]
    lines = []
    for base in read_rows("base"):
        quality = (
            f"conditional accuracy {_percent(base['conditional_accuracy'])}, of the detector on real images {_percent(base['detector_accuracy'])}"
        )
        distance = f"{base['fd']:.3f}, of real images {base['fd_of_real_images']:.3f}"
        lines.append([base["dataset"], "(the base)", "", "", quality, distance, "", "", f"{base['base_seconds']:.0f} s", "", "", ""])
        for method in dict.fromkeys(row["method"] for row in rows):
            lines += _erase_lines(base["dataset"], method, [r for r in rows if (r["dataset"], r["method"]) == (base["dataset"], method)])
    note = "PASS is of the end of a run. Time to the gate is the median of training until the first PASS, of the runs (in brackets) that had one;"
    note += " the rest are medians or means of all runs, S50 beyond the last look counting as 256."
    return f"{_table(header, lines)}\n\n{note} {_measured_at(rows)} `make bench-erase` measures it again."


def rates_table(rows: list[Row]) -> str:
    """One line a dataset and rival, one column a rate: UA, and what failed; bold is the rate that the benchmark takes."""
    rates = sorted({row["learning_rate"] for row in rows})
    lines = []
    for dataset, chosen in best(rows).items():
        for method, rate in chosen.items():
            found = {row["learning_rate"]: _tried(row) for row in rows if (row["dataset"], row["method"]) == (dataset, method)}
            lines.append([dataset, f"`{method}`", *(f"**{found[r]}**" if r == rate else found.get(r, "") for r in rates)])
    return f"{_table(['dataset', 'method', *map(str, rates)], lines)}\n\n{_measured_at(rows)} `python -m benchmarks.rates` measures it again."


def _tried(row: Row) -> str:
    if row["verdict"] == "diverged":
        return "diverged"
    ended = "PASS" if row["verdict"] == "PASS" else "fails " + ", ".join(row["failed"])
    return f"UA {_percent(row['ua'])}, {ended}"


def labels_table(rows: list[Row]) -> str:
    """One line a label."""
    header = [
        "label",
        "verdict",
        "failed",
        "UA",
        "upper bound of detections",
        "retained accuracy",
        "Fréchet distance",
        "time",
        "time to the gate",
        "S50",
    ]
    lines = [
        [
            str(row["label"]),
            str(row["verdict"]),
            ", ".join(row["failed"]),
            _percent(row["ua"]),
            f"{100 * row['detections_upper']:+.1f} %",
            f"{-100 * row['retained_drop']:+.1f} pp",
            f"{100 * row['fd_change']:+.1f} %",
            f"{row['seconds']:.0f} s",
            "–" if row["seconds_to_gate"] is None else f"{row['seconds_to_gate']:.0f} s",
            "–" if row["s50"] is None else str(row["s50"]),
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `make bench-labels` measures it again."


def _erase_lines(dataset: str, method: str, rows: list[Row]) -> list[list[str]]:
    ended = [row for row in rows if row["verdict"] != "diverged"]
    if not ended:
        return [[dataset, f"`{method}`", f"0 of {len(rows)}, all diverged", *[""] * 9]] if rows else []
    passed = [row["seconds_to_gate"] for row in ended if row["seconds_to_gate"] is not None]
    drop, change = (statistics.mean(row[name] for row in ended) for name in ("retained_drop", "fd_change"))
    medians = {name: _median([row[name] for row in ended]) for name in ("forwards", "backwards", "seconds", "peak_rss_mb")}
    relearned = _median([row["s50"] if row["s50"] is not None else 256 for row in ended])
    line = [dataset, f"`{method}`", f"{sum(row['verdict'] == 'PASS' for row in ended)} of {len(rows)}", _percent(min(row["ua"] for row in ended))]
    gate = f"{_or_never(_median(passed), ' s')} ({len(passed)})"
    line += [f"{-100 * drop:+.1f} pp", f"{100 * change:+.0f} %", f"{medians['forwards']:.0f}", f"{medians['backwards']:.0f}"]
    return [[*line, f"{medians['seconds']:.0f} s", gate, f"{medians['peak_rss_mb']:.0f} MB", f"{relearned:.0f}"]]


def gate_table(rows: list[Row]) -> str:
    """One line a dataset and model: how often the gate said PASS, and which checks stood against it, with how many of the runs each."""
    lines = []
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        passed = sum(row["verdict"] == "PASS" for row in mine)
        against = Counter(check for row in mine for check in row["failed_checks"])
        named = ", ".join(f"{check} {count}" for check, count in against.items())
        right = passed == (len(mine) if mine[0]["expected"] == "PASS" else 0)
        lines.append([dataset, model, mine[0]["expected"], f"{passed} of {len(mine)}{'' if right else ' (wrong)'}", named])
    table = _table(["dataset", "model", "expected", "PASS", "checks that did not pass, in how many runs"], lines)
    return f"{table}\n\n{_measured_at(rows)} `make bench-gate` measures it again."


def attacks_table(rows: list[Row]) -> str:
    """One line a model: what each attack brought of it, between the base and a model without the class."""
    header = ["dataset", "model", "label, seed", "F4", "F5", "F3.partial", "F6, steps to half", "F7", "F9 PIA's AUC", "what says FAIL"]
    lines = []
    for row in rows:
        found = row["attacks"]
        brought = [f"{base} → {model}" + ("" if without is None else f" ({without})") for base, model, without in map(found.get, ATTACKS)]
        steps = {name: ", ".join("–" if step is None else str(step) for step in found["F6"][name]) for name in ("model", "without")}
        reached, n = found["F7"]
        auc = " → ".join(f"{value:.2f}" for value in found["F9"]["PIA"])
        failed = ", ".join(name for name, verdict in row["checks"].items() if verdict == "FAIL")
        beside = [f"{steps['model']} ({steps['without']})", f"{reached} of {n}", auc, failed or "none"]
        lines.append([row["dataset"], row["model"], f"{row['label']}, {row['seed']}", *brought, *beside])
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `python -m benchmarks.gate --tier 2` measures it again."


def rounded_table(rows: list[Row]) -> str:
    """One line a model: detections at each seed, of the model, of its graph and of the rounded one."""
    lines = []
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        counts = [", ".join(str(row[f"{what}_detections"]) for row in mine) for what in ("model", "onnx", "int8")]
        sizes = [rounded / exported for exported, rounded in (row["bytes"] for row in mine)]
        lines.append([dataset, model, *counts, f"{max(row['max_relative_error'] for row in mine):.0e}", f"{statistics.median(sizes):.2f}"])
    header = [
        "dataset",
        "model",
        "detections of the model, by seed",
        "of its graph",
        "with weights of 8 bits",
        "largest error of the graph",
        "size, rounded",
    ]
    asked = f"Detections of {rows[0]['n']:,} samples each, with seeds of their own."
    return f"{_table(header, lines)}\n\n{asked} {_measured_at(rows)} `python -m benchmarks.rounded` measures it again."


def judging_table(rows: list[Row]) -> str:
    """One line a tier."""
    lines = [[str(row["tier"]), f"{row['seconds']:.0f} s", f"{100 * row['sampling_share']:.0f} %", str(row["draws"])] for row in rows]
    table = _table(["tier", "evaluation", "of it sampling", "sets of samples"], lines)
    return f"{table}\n\n{_measured_at(rows)} `python -m benchmarks.judging WORKDIR` measures it again."


def serve_table(rows: list[Row]) -> str:
    """One line a setting."""
    header = ["setting", "solver", "Fréchet distance", "clients", "images together", "images/s", "× eager", "× no HTTP", "p50", "p99"]
    lines = [
        [
            row["setting"],
            row["solver"],
            f"{row['fd']:.3f}",
            str(row["clients"] or "–"),
            str(row["batch"]) if not row["clients"] else f"up to {row['batch']}",
            f"{row['images_per_s']:.1f}",
            f"{row['ratio_to_eager']:.2f}",
            f"{row['ratio_to_bare']:.2f}" if "ratio_to_bare" in row else "",
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `make bench-serve` measures it again."


def load_table(rows: list[Row]) -> str:
    """One line a run."""
    header = ["capacity", "asked for", "for", "answers by status", "unanswered", "p50", "p99", "memory at 1 min → end"]
    lines = [
        [
            f"{row['capacity_per_s']:.0f}/s",
            f"{row['asked_per_s']:.0f}/s",
            f"{row['seconds']} s",
            ", ".join(f"{status}: {count}" for status, count in row["statuses"].items()),
            str(row["unanswered"]),
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
            f"{row['rss_mb'][0]:.1f} → {row['rss_mb'][1]:.1f} MB ({100 * row['rss_drift']:+.1f} %)",
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `make bench-serve` measures it again."


ATTACKS = ("F4", "F5", "F3.partial")


def found_table(rows: list[Row]) -> str:
    """One line a step."""
    lines = [[f"`{row['step']}`", f"{row['cpu_seconds']:.1f} s"] for row in rows]
    return f"{_table(['step', 'CPU time'], lines)}\n\n{_measured_at(rows)} `python -m benchmarks.found WORKDIR` measures it again."


def data_table(rows: list[Row]) -> str:
    """One line a format and step."""
    header = ["shards", "step", "images", "images a second", "speed of reading and hashing = 1", "peak memory, MB"]
    lines = [
        [
            str(row["format"]),
            str(row["step"]),
            f"{row['images']:,}",
            f"{row['images_per_s']:,}",
            f"{row['ratio_to_disk']:.2f}",
            str(row["peak_rss_mb"]),
        ]
        for row in rows
    ]
    return f"{_table(header, lines)}\n\n{_measured_at(rows)} `python -m benchmarks.data FOLDER` measures it again."


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "demo": demo_table,
    "targets": targets_table,
    "timing": timing_table,
    "step": step_table,
    "erase": erase_table,
    "labels": labels_table,
    "rates": rates_table,
    "gate": gate_table,
    "attacks": attacks_table,
    "rounded": rounded_table,
    "judging": judging_table,
    "serve": serve_table,
    "load": load_table,
    "found": found_table,
    "data": data_table,
}


def fill(text: str) -> str:
    """Replace what stands between ``<!-- table:NAME -->`` and ``<!-- end -->``."""

    def table(match: re.Match[str]) -> str:
        rows = read_rows(match["name"])
        body = TABLES[match["name"]](rows) if rows else "Not measured yet."
        return f"<!-- table:{match['name']} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- table:(?P<name>\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    """Fill every Markdown file that has a marker."""
    for path in [ROOT / "README.md", *sorted(Path(ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        if (filled := fill(text)) != text:
            path.write_text(filled)


if __name__ == "__main__":
    main()
