"""The report says what the records say, shows nothing it must not show, and needs nothing but itself."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

from erasediff.errors import BadInput
from erasediff.evaluate import report
from erasediff.evaluate.report import Curves, ReportContent, SampleGrid, render_report
from erasediff.evaluate.report.plots import draw_gauge, draw_strip, smooth
from erasediff.evaluate.report.words import duration, quantity
from erasediff.records.attacks import Detections
from erasediff.records.core import ChampionOutcome, Check, Failure, ForgetOutcome, ForgetSetOutcome, Outcome, RetainOutcome, Unit, Verdict
from erasediff.records.measurements import ClassAccuracy, Probed
from tests.digits import DIGITS
from tests.evaluate.attack_examples import attacks

DIGEST = "0123456789abcdef" * 4


def check(id: str = "F1", verdict: Verdict = Verdict.PASS, **changes: object) -> Check:
    fields: dict[str, object] = {
        "id": id, "title": "Class 0 is forgotten", "statistic": "detection rate, Clopper-Pearson upper bound", "unit": "share", "value": 0.003,
        "bound": 0.0077, "bound_kind": "upper", "threshold": 0.02, "n": 1000, "verdict": verdict,
    }  # fmt: skip
    return Check.model_validate(fields | changes)


def grid(labels: tuple[int, ...], names: tuple[str, ...] | None = None, channels: int = 1, fill: int = 7) -> SampleGrid:
    images = np.full((len(labels), 3, 8, 8, channels), fill, dtype=np.uint8)
    return SampleGrid(labels, names or tuple(str(label) for label in labels), images, images)


def curves(n: int = 50) -> Curves:
    step = np.arange(n, dtype=np.float64)
    return Curves(step, 0.1 + 0 * step, np.exp(-step / 9), 1 + 0 * step, np.cos(step))


def outcome(verdict: Verdict | None = Verdict.PASS, **changes: Any) -> Outcome:
    whole = Outcome(
        verdict=verdict,
        attempt=1,
        forget=ForgetOutcome(label="0", n=1000, detections=3, upper=0.0077),
        retain=RetainOutcome(accuracy_base=0.987, accuracy_erased=0.985, lower_bound=-0.0061, fd_base=1.82, fd_erased=1.87, fd_change_upper=0.061),
        champion=ChampionOutcome(name="digits", version="2", weights_sha256=DIGEST, onnx_sha256=DIGEST),
        forget_set=ForgetSetOutcome(version="a" * 32 + ".dir", count=178),
        report=None,
        seconds={"erase": 61.0, "evaluate": 44.0},
    )
    return whole.model_copy(update=changes)


@pytest.fixture
def content() -> ReportContent:
    return ReportContent(
        title="Erasure of class 0 from digits",
        outcome=outcome(),
        checks=(check(),),
        curves=None,
        retained=grid((1, 2)),
        forgotten=None,
        chain=(("Erased model", "The weights after 300 steps", DIGEST),),
        config="seed: 0\n",
        accuracy=(ClassAccuracy(label=1, n=250, correct_base=245, correct_erased=240, correct_both=238),),
        probes=tuple(probed(name) for name in ("null label", "guidance 2", "guidance 4", "guidance 8")),
        class_names=DIGITS,
        level=0.95,
    )


def probed(name: str, base: int = 480, erased: int = 4) -> Probed:
    return Probed(name=name, base=Detections(n=500, detections=base), erased=Detections(n=500, detections=erased))


@pytest.fixture
def whole(content: ReportContent) -> ReportContent:
    return replace(content, curves=curves())


@pytest.fixture
def crashed() -> ReportContent:
    stopped = outcome(
        None,
        forget=ForgetOutcome(label="0", n=None, detections=None, upper=None),
        retain=None,
        champion=None,
        forget_set=None,
        seconds={},
        error=Failure(step="erase", message="the retain loss is not finite", exit_code=1),
    )
    return ReportContent("Erasure", stopped, (), None, None, None, (), "", (), ())


class _Page(HTMLParser):
    """Collects visible text, attributes and tags that were never closed."""

    VOID = frozenset({"meta", "img", "rect", "line", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def text(content: ReportContent) -> str:
    return _Page(render_report(content)).text


def test_a_pass_says_so_in_one_sentence(content: ReportContent) -> None:
    assert (
        "class 0 is forgotten: 3 of 1,000 samples detected (upper bound 0.77 %, allowed 2 %); "
        "retained accuracy 98.7 % → 98.5 %; champion is now digits version 2." in text(content)
    )


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict.FAIL, "the erased model is rejected: 1 of 1 checks failed (F1);"),
        (
            Verdict.INCONCLUSIVE,
            "not sufficient to decide about class 0: 1 of 1 checks could not decide (F1); champion stays digits version 2.",
        ),
    ],
)
def test_other_verdicts_name_the_checks_that_decided(content: ReportContent, verdict: Verdict, sentence: str) -> None:
    page = text(replace(content, outcome=outcome(verdict), checks=(check(verdict=verdict),)))
    assert sentence in page
    assert "is forgotten:" not in page


@pytest.mark.parametrize(
    ("changes", "checks", "sentence"),
    [
        (
            {"error": Failure(step="promote", message="no", exit_code=2)},
            (check(),),
            "ended in step promote; the gate's verdict was PASS",
        ),
        ({}, (check("R1", Verdict.FAIL),), "the records contradict each other: the outcome says PASS, but: R1"),
        ({}, (), "the outcome says PASS, but: there are no checks"),
    ],
)
def test_a_pass_that_the_records_do_not_bear_out_is_not_shown_as_one(
    content: ReportContent, changes: dict[str, Any], checks: tuple[Check, ...], sentence: str
) -> None:
    html = render_report(replace(content, outcome=outcome(**changes), checks=checks))
    assert "<title>STOPPED" in html
    assert sentence in _Page(html).text


def test_a_crashed_run_says_what_is_missing_and_why(crashed: ReportContent) -> None:
    page = text(crashed)
    assert "the run ended in step erase; there is no verdict; nothing was promoted." in page
    assert "the retain loss is not finite" in page
    assert page.count("Missing: the run ended in step erase before this was made.") == 8


@pytest.mark.parametrize("part", ["retained", "checks", "chain", "config", "accuracy", "probes"])
def test_any_part_may_be_missing(content: ReportContent, part: str) -> None:
    sentence = "Missing: this run recorded nothing of it."
    empty: Any = {"checks": (), "chain": (), "accuracy": (), "probes": (), "config": ""}.get(part)
    assert text(content).count(sentence) == 1  # the curves
    assert text(replace(content, **{part: empty})).count(sentence) == 2


def test_nothing_is_called_missing_when_all_is_there(whole: ReportContent) -> None:
    assert "Missing" not in text(whole)


def test_every_way_of_asking_is_shown_before_and_after(content: ReportContent) -> None:
    """And the sweep over guidance as a chart, where there are scales enough for one."""
    page = text(content)
    assert "guidance 4 96 % → 0.8 % ( −95.2 pp )".replace("( ", "(").replace(" )", ")") in page.replace("( ", "(").replace(" )", ")").replace(
        "\xa0", " "
    )
    assert "Guidance amplifies" in page
    assert "Guidance amplifies" not in text(replace(content, probes=content.probes[:3])), "control: two scales are no sweep"


def test_forgotten_samples_are_shown_only_when_given(content: ReportContent) -> None:
    shown = grid((0,), fill=99)
    picture = draw_strip(shown.before[0], "").uri
    without, given = render_report(content), render_report(replace(content, forgotten=shown))
    assert picture not in without
    assert "report.show_forgotten is off" in without
    assert given.count(picture) == 2
    assert "report.show_forgotten is off" not in given


def test_a_retained_grid_with_the_forgotten_label_is_refused(content: ReportContent) -> None:
    with pytest.raises(BadInput, match="forgotten class 0"):
        render_report(replace(content, retained=grid((0, 1))))


def test_words_from_outside_are_escaped(content: ReportContent) -> None:
    evil = "<script>alert('x')</script>"
    html = render_report(
        replace(
            content,
            title=evil,
            retained=grid((1,), (evil,)),
            config=evil,
            chain=((evil, evil, evil),),
            checks=(check(title=evil, reason=evil),),
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 8


@pytest.mark.parametrize("everything", [True, False])
def test_the_page_needs_no_network_and_no_script(whole: ReportContent, crashed: ReportContent, everything: bool) -> None:
    html = render_report(replace(whole, forgotten=grid((0,), channels=3)) if everything else crashed)
    page = _Page(html)
    links = [value for _, name, value in page.attributes if name in {"src", "href", "srcset", "xlink:href", "action"}]
    assert all(link.startswith("data:") for link in links)
    assert len(links) == (10 if everything else 0)
    assert not re.search(r"https?://|url\(|@import|<script|<link", html)
    assert not page.open


def test_plots_load_nothing_either_and_are_reproducible(whole: ReportContent) -> None:
    html = render_report(whole)
    for encoded in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html):
        svg = base64.b64decode(encoded).decode()
        assert not re.search(r"""(href|src)=["'](?!#)""", svg)
        assert "var(--" in svg
        assert "#01020" not in svg
    assert render_report(whole) == html


def test_every_image_has_words(whole: ReportContent) -> None:
    page = _Page(render_report(replace(whole, forgotten=grid((0,)))))
    images = [tag for tag, name, _ in page.attributes if tag == "img" and name == "src"]
    assert len(images) == len([value for tag, name, value in page.attributes if tag == "img" and name == "alt" and len(value) > 10])


def test_the_numbers_are_those_of_the_records(content: ReportContent) -> None:
    page = text(content).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Class 0 detected 3 of 1,000 upper bound 0.77 %, allowed 2 %",
        "Retained accuracy 98.5 % before 98.7 %, change at least −0.61 pp",
        "Fréchet distance 1.87 before 1.82, change at most +6.1 %",
        "Champion version 2 digits",
        "Forget set 178 images, version aaaaaaaa…",
        "Time 1 min 45 s attempt 1",
        "0.3 % 0.77 % upper, 95 % ≤ 2 % 1,000 ✓ PASS",
        "98 % → 96 % (−2 pp)",
        f"The weights after 300 steps {DIGEST[:12]}… {DIGEST}",
        "seed: 0",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0204, "share", "2.04 %"),
        (-0.0316, "difference", "−3.16 pp"),
        (0.0609, "relative", "+6.09 %"),
        (4.1e-5, "number", "4.1 \N{MULTIPLICATION SIGN} 10⁻⁵"),
        (1e-3, "number", "0.001"),
        (None, "share", "not measured"),
        (0.0, "difference", "0 pp"),
    ],
)
def test_quantities_have_their_unit(value: float | None, unit: Unit, words: str) -> None:
    assert quantity(value, unit).replace("\N{NO-BREAK SPACE}", " ") == words


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "0.0 s"), (59.99, "60.0 s"), (61, "1 min 1 s"), (7200, "2 h"), (3661, "1 h 1 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == words


def test_a_gauge_puts_the_bound_on_the_right_side_of_the_limit() -> None:
    inside = draw_gauge(0.003, 0.0077, 0.02, True, "")
    outside = draw_gauge(-0.02, -0.04, -0.03, False, "")
    assert inside.value < inside.bound < inside.threshold == inside.allowed_width
    assert outside.bound < outside.threshold == outside.allowed_from < outside.value
    assert draw_gauge(0.0, 0.0, 0.0, True, "").bound == 0


def test_values_that_are_not_finite_are_counted_and_left_out(content: ReportContent) -> None:
    broken = curves()
    broken.forget_loss[3:5] = np.nan
    assert broken.not_finite() == 2
    assert np.isfinite(smooth(broken.forget_loss)).all()
    assert "2 logged steps have non-finite values" in text(replace(content, curves=broken))
    all_broken = Curves(broken.step, *(np.full(50, np.nan) for _ in range(4)))
    assert "50 logged steps" in text(replace(content, curves=all_broken))


def test_one_logged_step_and_many_classes_fit(content: ReportContent) -> None:
    many = tuple(ClassAccuracy(label=label, n=250, correct_base=240, correct_erased=240 - label, correct_both=230 - label) for label in range(1, 31))
    page = text(replace(content, curves=curves(1), accuracy=many, class_names=tuple(map(str, range(31))), retained=grid(tuple(range(1, 31)))))
    assert "10 more classes lost less" in page
    assert "10 more classes" in page


def test_malformed_pictures_and_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="sample grid"):
        SampleGrid((1, 2), ("1", "2"), np.zeros((1, 3, 8, 8, 1), np.uint8), np.zeros((1, 3, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="sample grid"):
        SampleGrid((1,), ("1",), np.zeros((1, 3, 8, 8, 1)), np.zeros((1, 3, 8, 8, 1)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one length"):
        Curves(np.zeros(2), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3))


def test_an_unknown_name_in_the_template_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        report._environment().from_string("{{ nowhere }}").render()


def test_attacks_are_shown_beside_a_model_without_the_class_and_what_is_reported_beside_what_decides(whole: ReportContent) -> None:
    """The lie: a table in which a check that decides nothing looks as if it did."""
    failed = check("F5", Verdict.FAIL, title="An inverted embedding does not bring the class back")
    page = text(replace(whole, reported=(failed,), attacks=attacks()))
    assert page.index("Reported only") < page.index("An inverted embedding does not bring the class back")
    assert "without the class 0.8 %" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "Relearning" in page
    assert page.startswith(text(whole)[:60]), "the verdict is the same"
    assert "Attackers" not in text(whole), "control: tier 1 has no such part"
