"""The lie: 'the same class', of a request, a rule, a server and an erasure that mean different ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.data.datasets import ImageDataset, encode_labels
from erasediff.data.rows import write_rows
from erasediff.data.split import partition
from erasediff.errors import BadInput
from erasediff.records.base import Pointer
from erasediff.records.core import ErasureRequest, ModelRecord, ServedModel, Verdict
from erasediff.records.names import ClassRecord, normal_name, shown_names
from erasediff.records.positions import PositionedRequest, positioned_requests, positioned_text
from erasediff.records.serving import parse_rules
from erasediff.records.yaml import dump_yaml
from erasediff.serve.guard import check_suppressed
from erasediff.serve.inputs import Defaults, Tensor, parse_inputs
from erasediff.serve.request import Refused

DIGEST, DEFAULTS = "0" * 64, Defaults("ddim-2", 1.0)
LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn"))
NAMES = (
    st.text(LETTERS, min_size=1, max_size=6)
    | st.integers(0, 12).map(str)
    | st.sampled_from(["A", "a", "e\u0301", "Zo\u00eb", "x y", "no", "0x1", "3.0"])
)
CLASSES = st.lists(NAMES.map(normal_name).filter(bool), min_size=2, max_size=8, unique=True)
SPELLINGS: list[Callable[[str], str]] = [
    str,
    lambda name: f" {name}\u00a0",
    lambda name: unicodedata.normalize("NFD", name),
]


def served(names: tuple[str, ...]) -> ServedModel:
    pointer = Pointer(uri="x", sha256=DIGEST)
    fields = {"dataset": "d", "epoch": 0, "onnx": pointer, "solvers": pointer, "solver": "ddim-2", "guidance_scale": 1.0}
    return ServedModel(class_names=names, weights_sha256=DIGEST, verdict=Verdict.PASS, **fields)  # type: ignore[arg-type]


def erased_row(dataset: ImageDataset, model: ModelRecord, label: str) -> int:
    """The row that an erasure trains: that of the pictures which the request names."""
    ordered = dataset.in_order_of(model)
    rows = set(ordered.labels[dataset.labels == dataset.class_names.index(label)].tolist())
    return rows.pop() if len(rows) == 1 else -1


@given(CLASSES, st.data())
def test_request_rules_server_and_erasure_mean_the_same_class(names: list[str], data: st.DataObject) -> None:
    """Whatever it is called, however that is spelled, and whatever the order of the model's classes and the dataset's."""
    found, labels = encode_labels(names)
    dataset = ImageDataset("d", np.zeros((len(names), 2, 2, 1), dtype=np.uint8), labels, found)
    in_order = tuple(data.draw(st.permutations(names)))
    model = ModelRecord(dataset="d", class_names=in_order, weights=Pointer(uri="w", sha256=DIGEST), folder_sha256=DIGEST)
    typed = data.draw(st.sampled_from(SPELLINGS))(data.draw(st.sampled_from(names)))
    request = ErasureRequest.parse({"dataset": "d", "label": typed}, "the request")
    row = model.row(request.label)
    assert in_order[row] == dataset.class_called(typed) == normal_name(typed)
    assert erased_row(dataset, model, request.label) == row
    rules = parse_rules(dump_yaml({"suppress": [typed]}), "the rules")
    manifest = served(in_order)
    for name in names:
        asked = parse_inputs([Tensor("label", "BYTES", [name])], DEFAULTS, manifest.class_names)
        if asked.label == row:
            with pytest.raises(Refused):
                check_suppressed(asked, manifest, rules)
        else:
            check_suppressed(asked, manifest, rules)
    (handed,) = positioned_requests(positioned_text([request], in_order))
    assert (handed.position, handed.named([dataset.class_names, in_order])) == (row, request)


def test_control_positions_do_not_mean_the_same_class() -> None:
    """What was so before: a position in the dataset was taken for one in the model."""
    names = ("2", "3", "10")
    _, labels = encode_labels(list(names))
    dataset = ImageDataset("d", write_rows([np.zeros((3, 2, 2, 1), dtype=np.uint8)]), labels, names)
    model = ModelRecord(dataset="d", class_names=("10", "2", "3"), weights=Pointer(uri="w", sha256=DIGEST), folder_sha256=DIGEST)
    assert dataset.class_names.index("3") != model.row("3") == erased_row(dataset, model, "3")


def test_a_dataset_of_other_classes_is_refused_and_the_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls: a class that the model has forgotten may be missing; and in a pod, whose log others keep, no name is told."""
    dataset = ImageDataset("pets", write_rows([np.zeros((2, 2, 2, 1), dtype=np.uint8)]), np.array([0, 1]), ("cat", "dog"))
    with pytest.raises(BadInput, match=r"the dataset lacks emu and the model lacks dog"):
        dataset.in_order_of(ClassRecord(class_names=("cat", "emu")))
    with pytest.raises(BadInput, match="lacks emu"):
        dataset.in_order_of(ClassRecord(class_names=("emu", "dog", "cat")))
    found = dataset.in_order_of(ClassRecord(class_names=("emu", "dog", "cat"), forgotten=("emu",)))
    assert (found.class_names, found.labels.tolist()) == (("emu", "dog", "cat"), [2, 1])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(BadInput) as refused:
        dataset.in_order_of(ClassRecord(class_names=("cat", "emu")))
    assert "1 name, not shown in a pod" in str(refused.value)
    assert not [word for word in ("emu", "dog") if word in str(refused.value)]


def test_a_dataset_in_the_models_order_is_partitioned_as_before() -> None:
    labels = np.arange(60) % 3
    dataset = ImageDataset("d", write_rows([np.zeros((60, 2, 2, 1), dtype=np.uint8)]), labels, ("a", "b", "c"))
    ordered = dataset.in_order_of(ClassRecord(class_names=("a", "b", "c")))
    assert ordered is dataset
    other = dataset.in_order_of(ClassRecord(class_names=("c", "a", "b")))
    assert other.digest() != dataset.digest(), "control: another order is another dataset for a detector"
    assert len(partition(other.labels, 0.3, 0).holdout) == len(partition(labels, 0.3, 0).holdout)


@pytest.mark.parametrize("names", [("a", "a"), ("a",), ("a", " a"), ("e\u0301", "\u00e9"), ("a", " "), ("a", "\ud800"), ("a", 3)])
def test_what_is_no_list_of_classes_is_refused(names: tuple[object, ...]) -> None:
    with pytest.raises(BadInput, match="list"):
        ClassRecord.parse({"class_names": names}, "the list")


def test_a_position_is_looked_up_in_the_list_that_was_meant_and_in_no_other() -> None:
    """After a class was removed, position 1 is another one. Control: with the right list beside others it is found."""
    handed = PositionedRequest.of(ErasureRequest(dataset="d", label="b"), ("a", "b", "c"))
    with pytest.raises(BadInput, match="the classes of d are not those of the submission"):
        handed.named([("b", "c"), ("a", "c", "b")])
    assert handed.named([("b", "c"), ("a", "b", "c")]).label == "b"
    with pytest.raises(BadInput, match="position 7 is beyond the 3 classes"):
        handed.model_copy(update={"position": 7}).named([("a", "b", "c")])
    with pytest.raises(BadInput, match="not among the 2 classes"):
        PositionedRequest.of(ErasureRequest(dataset="d", label="b"), ("a", "c"))


def test_many_names_are_told_in_short() -> None:
    assert shown_names([str(i) for i in range(1000)]).endswith("18, 19 and 980 more")
    assert shown_names(["a\nb"]) == r"'a\nb'", "a name keeps to its line"
