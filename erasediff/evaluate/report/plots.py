"""Figures of the report: training curves as SVG and sample strips as PNG, both as data URIs, and gauges.

The SVG takes its colours from CSS variables that follow the reader's light or dark scheme, and its text is text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from PIL import Image

Series = npt.NDArray[np.float64]

# Placeholders that matplotlib draws with; each is replaced by a CSS variable in the finished SVG.
INK, MUTED, GRID, RETAIN, FORGET = "#010203", "#010204", "#010205", "#010206", "#010207"
_PALETTE = {
    INK: ("--ink", "#1d2327", "#e8eaea"),
    MUTED: ("--muted", "#59636b", "#a3adb3"),
    GRID: ("--grid", "#e3e6e3", "#2f383d"),
    RETAIN: ("--retain", "#1f6f8b", "#6cbdd8"),
    FORGET: ("--forget", "#b4532a", "#f0976b"),
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "erasediff",
    "font.size": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_MOST_POINTS = 1200
_LOG_FROM = 20.0
_STRIP_WIDTH = 480


@dataclass(frozen=True)
class Curves:
    """The training curves of an erasure: one entry per logged training step."""

    step: Series
    retain_loss: Series
    forget_loss: Series
    multiplier: Series
    gradient_cosine: Series

    def __post_init__(self) -> None:
        """Refuse series of unequal length."""
        if len({values.shape for values in self._series()}) != 1 or self.step.ndim != 1:
            raise ValueError("the training curves must be one-dimensional and of one length")

    def _series(self) -> tuple[Series, ...]:
        return self.step, self.retain_loss, self.forget_loss, self.multiplier, self.gradient_cosine

    def not_finite(self) -> int:
        """How many logged steps hold a value that is not a finite number."""
        return int(np.count_nonzero(~np.all(np.isfinite(np.stack(self._series())), axis=0)))


@dataclass(frozen=True)
class SampleGrid:
    """Samples of some classes from the same seeds, before and after: one row a class."""

    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Refuse pictures that do not belong to the labels, or are not ``uint8 [classes, k, H, W, 1|3]``."""
        shape = self.before.shape
        fits = len(shape) == 5 and shape[0] == len(self.labels) == len(self.class_names) and shape[4] in (1, 3)
        if not fits or self.after.shape != shape or {self.before.dtype, self.after.dtype} != {np.dtype(np.uint8)}:
            raise ValueError(f"a sample grid needs uint8 [classes, k, H, W, 1 or 3] twice, not {shape} and {self.after.shape}")


@dataclass(frozen=True)
class Plot:
    """A figure with a caption and a text alternative."""

    title: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Strip:
    """A row of samples side by side, and its display width: a whole multiple of its pixels."""

    uri: str
    width: int
    height: int
    shown_width: int
    alt: str


@dataclass(frozen=True)
class GridRow:
    """A class before and after."""

    name: str
    before: Strip
    after: Strip


@dataclass(frozen=True)
class Gauge:
    """A bound against its threshold; positions in percent of the width."""

    allowed_from: float
    allowed_width: float
    threshold: float
    value: float
    span_from: float
    span_width: float
    bound: float
    words: str


def draw_gauge(value: float, bound: float, threshold: float, upper: bool, words: str) -> Gauge:
    """Place value, bound and threshold on one axis that includes 0; the allowed side of the threshold is shaded."""
    points = (0.0, value, bound, threshold)
    margin = 0.12 * (max(points) - min(points)) or 1.0
    low, high = (min(points) - margin if min(points) < 0 else 0.0), max(points) + margin
    dot, tick, limit = (round(100 * (point - low) / (high - low), 2) for point in (value, bound, threshold))
    left, right = (0.0, limit) if upper else (limit, 100.0)
    return Gauge(left, round(right - left, 2), limit, dot, min(dot, tick), round(abs(dot - tick), 2), tick, words)


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def draw_strip(tiles: npt.NDArray[np.uint8], words: str) -> Strip:
    """Lay images ``[k, H, W, C]`` side by side, unscaled, with transparent gaps."""
    count, height, width, channels = tiles.shape
    gap = max(1, width // 10)
    strip = np.zeros((height, count * (width + gap) - gap, 4), dtype=np.uint8)
    for index, tile in enumerate(tiles):
        left = index * (width + gap)
        strip[:, left : left + width, :3] = tile[..., :3] if channels >= 3 else tile[..., :1]
        strip[:, left : left + width, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, format="PNG", optimize=True)
    width = strip.shape[1]
    shown = width * max(1, round(_STRIP_WIDTH / width))
    return Strip(data_uri(buffer.getvalue(), "image/png"), width, height, shown, f"{count} samples {words}")


def draw_grid(grid: SampleGrid | None) -> list[GridRow]:
    """Every class of a grid, before and after."""
    if grid is None:
        return []
    columns = zip(grid.class_names, grid.before, grid.after, strict=True)
    return [
        GridRow(name, draw_strip(before, f"of class {name} before the erasure"), draw_strip(after, f"of class {name} after it"))
        for name, before, after in columns
    ]


def smooth(values: Series) -> Series:
    """A centred moving average over a twentieth of the run, without non-finite values."""
    window = max(1, len(values) // 20) | 1
    finite = np.isfinite(values)
    kernel, half = np.ones(window), window // 2
    sums = np.convolve(np.where(finite, values, 0.0), kernel)[half : half + len(values)]
    counts = np.convolve(finite.astype(np.float64), kernel)[half : half + len(values)]
    means = np.full(len(values), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def plot_curves(curves: Curves) -> tuple[Plot, ...]:
    """Draw the three figures that say how the erasure went."""
    if not len(curves.step):
        return ()
    first, last = f"{curves.step[0]:,.0f}", f"{curves.step[-1]:,.0f}"
    span = f"from step {first} to step {last}"
    return (
        Plot(
            "Losses",
            "Both should end low: the model still denoises the retained classes well, and the forgotten label follows its new target.",
            f"Line chart {span}: retain loss {_ends(curves.retain_loss)}, forget loss {_ends(curves.forget_loss)}.",
            _svg(lambda axes: _draw_losses(axes, curves)),
        ),
        Plot(
            "Multiplier λ",
            "The weight of the forget gradient in a step. At 0 the step only serves the retained classes.",
            f"Line chart {span}: multiplier {_ends(curves.multiplier)}.",
            _svg(lambda axes: _draw_multiplier(axes, curves)),
        ),
        Plot(
            "Gradient cosine",
            "Above 0 both gradients agree. Below 0 they conflict, and the paper's rule raises λ.",
            f"Line chart {span}: cosine of the two gradients {_ends(curves.gradient_cosine)}.",
            _svg(lambda axes: _draw_cosine(axes, curves)),
        ),
    )


def plot_guidance(base: Sequence[tuple[float, float]], erased: Sequence[tuple[float, float]]) -> Plot | None:
    """Draw the detections of the forgotten class at each guidance scale, before and after; ``None`` for fewer than three scales.

    Args:
        base: pairs of a guidance scale and a share of samples, of the model as it was.
        erased: the same of the erased model, at the same scales.
    """
    if len(base) < 3:
        return None
    scales, before = zip(*sorted(base), strict=True)
    after = [share for _, share in sorted(erased)]
    return Plot(
        "Guidance",
        "Guidance amplifies what is left of the class: the erased model's line must stay at the bottom.",
        f"Line chart from scale {scales[0]:g} to {scales[-1]:g}: detected before at most {max(before):.1%}, after at most {max(after):.1%}.",
        _svg(lambda axes: _draw_guidance(axes, scales, before, after), "guidance scale"),
    )


def _draw_guidance(axes: Axes, scales: Sequence[float], before: Sequence[float], after: Sequence[float]) -> None:
    axes.plot(scales, before, color=RETAIN, marker="o", linewidth=2, label="before")
    axes.plot(scales, after, color=FORGET, marker="o", linewidth=2, label="after")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(scales), labels=[f"{scale:g}" for scale in scales])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, borderpad=0, handlelength=1.2, columnspacing=1.4)


Curve = Sequence[tuple[int, float]]


def plot_recovery(erased: Sequence[Curve], without: Sequence[Curve]) -> Plot | None:
    """Draw the share of the class that is back after some steps of relearning; ``None`` if nothing was measured.

    Args:
        erased: one curve a repeat, pairs of a step and a share of samples, of the erased model.
        without: the same of a model that was trained without the class; may be empty.
    """
    if not any(erased):
        return None
    last = max(step for curve in erased for step, _ in curve)
    beside = ", beside a model that was trained without the class" if any(without) else ""
    return Plot(
        "Relearning",
        f"The model relearns the class from a few images; each line is one repeat of at most {last} steps{beside}, until half of the class is back.",
        f"Line chart of {len(erased)} repeats up to step {last}: the share detected ends at {max(curve[-1][1] for curve in erased):.1%} at most.",
        _svg(lambda axes: _draw_recovery(axes, erased, without), "step of relearning"),
    )


def _draw_recovery(axes: Axes, erased: Sequence[Curve], without: Sequence[Curve]) -> None:
    for name, colour, curves in (("without the class", RETAIN, without), ("erased", FORGET, erased)):
        for number, curve in enumerate(curves):
            steps, shares = zip(*curve, strict=True)
            axes.plot(steps, shares, color=colour, marker="o", markersize=4, linewidth=1.6, label=name if number == 0 else None)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, borderpad=0, handlelength=1.2, columnspacing=1.4)


def _ends(values: Series) -> str:
    """The first and last value of the smoothed series, as text."""
    trend = smooth(values)
    return f"goes from {trend[0]:.3g} to {trend[-1]:.3g}"


def _line(axes: Axes, step: Series, values: Series, colour: str, label: str = "") -> None:
    """Draw the raw series faintly, with its moving average on top."""
    stride = max(1, -(-len(step) // _MOST_POINTS))
    axes.plot(step[::stride], values[::stride], color=colour, alpha=0.28, linewidth=0.8)
    axes.plot(step[::stride], smooth(values)[::stride], color=colour, linewidth=2.0, label=label, solid_capstyle="round")


def _draw_losses(axes: Axes, curves: Curves) -> None:
    _line(axes, curves.step, curves.retain_loss, RETAIN, "retain loss")
    _line(axes, curves.step, curves.forget_loss, FORGET, "forget loss")
    both = np.concatenate([curves.retain_loss, curves.forget_loss])
    both = both[np.isfinite(both)]
    if both.size and both.min() > 0 and np.quantile(both, 0.98) / np.quantile(both, 0.02) > _LOG_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif both.size:
        axes.set_ylim(bottom=min(0.0, float(both.min())))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, borderpad=0, handlelength=1.2, columnspacing=1.4)


def _draw_multiplier(axes: Axes, curves: Curves) -> None:
    _line(axes, curves.step, curves.multiplier, INK)
    axes.set_ylim(bottom=0)


def _draw_cosine(axes: Axes, curves: Curves) -> None:
    axes.axhline(0, color=MUTED, linewidth=1)
    trend = smooth(curves.gradient_cosine)
    axes.fill_between(curves.step, trend, 0, where=(trend < 0).tolist(), color=FORGET, alpha=0.22, linewidth=0)
    axes.fill_between(curves.step, trend, 0, where=(trend >= 0).tolist(), color=RETAIN, alpha=0.22, linewidth=0)
    _line(axes, curves.step, curves.gradient_cosine, INK)
    axes.set_ylim(-1.02, 1.02)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])


def _svg(draw: Callable[[Axes], None], along: str = "training step") -> str:
    """Draw one small figure with the x-axis ``along`` and return it as a data URI. Without pyplot, whose state is global."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 2.5), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.margins(x=0.01)
        axes.set_xlabel(along)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return data_uri(_themed(buffer.getvalue()).encode(), "image/svg+xml")


def _themed(svg: str) -> str:
    """Replace the placeholder colours by variables, and the font by the reader's own."""
    for placeholder, (variable, _, _) in _PALETTE.items():
        svg = svg.replace(placeholder, f"var({variable})")
    light = "".join(f"{variable}:{value};" for variable, value, _ in _PALETTE.values())
    dark = "".join(f"{variable}:{value};" for variable, _, value in _PALETTE.values())
    font = "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif!important}"
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}{font}</style>"
    return svg.replace("<defs>", style + "<defs>", 1)
