"""``python -m benchmarks.plots``: the Pareto plot of the methods, from ``results/erase.json``."""

from __future__ import annotations

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.results_file import ROOT, Row, read_rows

TARGET = ROOT / "docs" / "images" / "pareto.png"
_LIMIT = 0.02  # F1 of the policy


def _points(rows: list[Row], dataset: str) -> dict[str, tuple[float, float, float]]:
    """Median seconds, median upper bound of detections, and the share of runs that passed, by method."""
    points = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if (row["method"], row["dataset"]) == (method, dataset) and row["verdict"] != "diverged"]
        if mine:
            passed = sum(row["verdict"] == "PASS" for row in mine) / len(mine)
            bound = statistics.median(max(row["detections_upper"], 1e-3) for row in mine)
            points[method] = (statistics.median(row["seconds"] for row in mine), bound, passed)
    return points


def main() -> None:
    """Draw one panel a dataset: cost to the right, what is left of the class upwards; filled as far as runs passed."""
    rows = read_rows("erase")
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure, panels = plt.subplots(1, len(datasets), figsize=(5.6 * len(datasets), 4.4), squeeze=False, layout="constrained")
    for panel, dataset in zip(panels[0], datasets, strict=True):
        points = sorted(_points(rows, dataset).items(), key=lambda item: item[1][1])
        for turn, (method, (seconds, bound, passed)) in enumerate(points):
            mine = method == "erasediff"
            panel.scatter(
                seconds,
                bound,
                s=110,
                c=[passed],
                cmap="Greens",
                vmin=0,
                vmax=1,
                edgecolors="tab:red" if mine else "black",
                linewidths=2 if mine else 1,
            )
            panel.annotate(
                method,
                (seconds, bound),
                xytext=(8, (6, -13)[turn % 2]),
                textcoords="offset points",
                fontsize=9,
                fontweight="bold" if mine else "normal",
            )
        panel.axhline(_LIMIT, color="grey", linestyle="--", linewidth=1)
        panel.text(0.01, _LIMIT, "F1's limit", ha="left", va="bottom", fontsize=8, color="grey", transform=panel.get_yaxis_transform())
        panel.set(
            xscale="log", yscale="log", title=dataset, xlabel="training time, median (s)", ylabel="forgotten class detected, median upper bound"
        )
        panel.margins(0.25, 0.15)
    figure.suptitle("The greener, the larger the share of runs that passed C0, F1, R1 and R2 by the strict limits", fontsize=10)
    figure.savefig(TARGET, dpi=150)


if __name__ == "__main__":
    main()
