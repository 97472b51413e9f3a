"""The lie: 'this is the document the digest names', and 'the setting you misspelt is in force'."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from erasediff.errors import BadInput
from erasediff.records.base import canonical_json
from erasediff.records.config import DatasetConfig, DenoiserConfig, RunConfig, load_config
from erasediff.records.core import ErasureRequest, Parity
from erasediff.records.measurements import DetectorQuality, FrechetChange
from erasediff.records.policy import GatePolicy, load_policy
from erasediff.records.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "policies/class-conditional.yaml"
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12)


def assert_one_sentence(message: str, *parts: str) -> None:
    assert "\n" not in message
    assert message.endswith(".")
    assert all(part in message for part in parts), (message, parts)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(inner, rng)) for key, inner in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


@given(document=DOCUMENTS, rng=st.randoms(use_true_random=False))
def test_key_order_does_not_matter_and_nothing_is_lost(document: Any, rng: random.Random) -> None:
    encoded = canonical_json(document)
    assert canonical_json(shuffled(document, rng)) == encoded
    assert json.loads(encoded) == document


def test_canonical_json_is_that_of_rfc_8785() -> None:
    """The examples of RFC 8785, sections 3.2.2 and 3.2.3: any other tool computes the same digest."""
    numbers = [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27]
    document = {"numbers": numbers, "string": '€$\u000f\nA\'B"\\\\"/', "literals": [None, True, False]}
    wanted = r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA' + r"'B\"\\\\\"/" + '"}'
    assert canonical_json(document) == wanted.encode()
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    assert list(json.loads(canonical_json(dict.fromkeys(keys)))) == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


REQUESTS = st.builds(
    ErasureRequest, dataset=st.sampled_from(["a", "b", "A", "a1", "a.1"]), label=st.sampled_from(["a", "A", "1", "\u00e9", "e\u0301"])
)


@given(left=REQUESTS, right=REQUESTS)
def test_digests_are_equal_exactly_where_contents_are(left: ErasureRequest, right: ErasureRequest) -> None:
    """Two requests are the same request only if they say the same."""
    assert (left.digest() == right.digest()) == (left == right)


def test_a_record_read_back_has_the_same_digest(tmp_path: Path) -> None:
    config = RunConfig(seed=3)
    config.write(tmp_path / "config.json")
    assert RunConfig.read(tmp_path / "config.json").digest() == config.digest()
    assert RunConfig(seed=4).digest() != config.digest()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"dataset": "digits", "label": "1", "lable": 2}', ("'lable' is not known",)),
        ('{"dataset": "digits"}', ("'label'",)),
        ('{"dataset": "digits", "label": NaN}', ("'label'",)),
        ('{"dataset": "digits", "label": 3}', ("'label'", "3 is a number, and a class is told by its name")),
        ('{"dataset": "digits", "label": " "}', ("'label'", "1 to 4096 characters")),
        ('{"dataset": "../digits", "label": "1"}', ("'dataset'",)),
        ('{"dataset": "digits", "label": 9007199254740993}', ("9007199254740993",)),
        ('{"dataset": "digits", "label": 1, "label": 2}', ("the key 'label' appears twice",)),
        ("[]", ("document",)),
        ("{", ("is not JSON",)),
        ("[" * 100_000, ("is not JSON",)),
    ],
    ids=["unknown", "missing", "NaN", "a position", "blank", "path", "beyond 2^53", "twice", "no object", "cut short", "deep"],
)
def test_a_wrong_request_is_refused_with_one_sentence(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as error:
        ErasureRequest.parse_json(text, "the request r.json")
    assert_one_sentence(str(error.value), "the request r.json", *parts)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_record_holds_a_number_that_is_not_one(bad: float) -> None:
    good = {"n": 1, "fd_base": 1.0, "fd_erased": 1.0, "bootstrap_mean": 0.0, "bootstrap_sd": 0.0, "resamples": 1}
    FrechetChange.parse(good, "control")
    for field in ("fd_base", "fd_erased", "bootstrap_mean", "bootstrap_sd"):
        with pytest.raises(BadInput, match=field):
            FrechetChange.parse(good | {field: bad}, "r")
    with pytest.raises(BadInput, match="max_relative_error"):
        Parity.parse({"batch": 1, "timestep": 0, "max_relative_error": bad}, "r")


def test_no_record_holds_an_impossible_number() -> None:
    """A negative spread would narrow a bound, a negative error would pass any threshold, a rate above 1 is none."""
    with pytest.raises(BadInput, match="bootstrap_sd"):
        FrechetChange.parse({"n": 1, "fd_base": 1, "fd_erased": 1, "bootstrap_mean": 0, "bootstrap_sd": -1, "resamples": 1}, "r")
    with pytest.raises(BadInput, match="max_relative_error"):
        Parity.parse({"batch": 1, "timestep": 0, "max_relative_error": -1}, "r")
    quality = {"sha256": "0" * 64, "accuracy": 1, "true_positive_rate": 1.1, "false_positive_rate": 0, "holdout_positives": 1}
    with pytest.raises(BadInput, match="true_positive_rate"):
        DetectorQuality.parse(quality, "r")


def write_policy(tmp_path: Path, place: str, value: object) -> Path:
    document = yaml.safe_load(POLICY.read_text())
    *parents, last = place.split(".")
    section = document
    for name in parents:
        section = section[name]
    if value is None:
        del section[last]
    else:
        section[last] = value
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("forget.max_uper", 0.02),
        ("surprise", 1),
        ("forget.max_upper", 1.0),
        ("forget.max_upper", 0),
        ("forget.n", 0),
        ("alpha", 0.5),
        ("control.min_detected", 0),
        ("control.min_true_positive_rate", 1.01),
        ("retain.macro_margin", 1),
        ("retain.n_per_class", "many"),
        ("fidelity.resamples", 199),
        ("fidelity.max_relative_upper", float("inf")),
        ("export.max_relative_error", float("nan")),
        ("export", None),
        ("unasked", None),
        ("unasked.base_share", 1),
        ("probes.ask", []),
        ("control.reference_steps", 0),
        ("fidelity.kernel_blocks", 19),
        ("fidelity.manifold_margin", 0),
        ("retain.class_margin", None),
    ],
)
def test_a_policy_that_could_not_be_meant_is_refused_by_field(tmp_path: Path, place: str, value: object) -> None:
    path = write_policy(tmp_path, place, value)
    with pytest.raises(BadInput) as error:
        load_policy(path)
    assert_one_sentence(str(error.value), f"'{place}'", str(path))


def test_the_published_schema_is_that_of_the_policy_and_both_shipped_policies_follow_it(tmp_path: Path) -> None:
    """An editor that knows the schema must not accept what the gate refuses."""
    import jsonschema

    schema = json.loads((ROOT / "policies/schema.json").read_text())
    assert schema == GatePolicy.model_json_schema()
    for name in ("class-conditional", "class-conditional-strict"):
        jsonschema.validate(yaml.safe_load((ROOT / f"policies/{name}.yaml").read_text()), schema)
        assert load_policy(ROOT / f"policies/{name}.yaml").name == name
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(write_policy(tmp_path, "surprise", 1).read_text()), schema)


def test_control_the_shipped_policy_is_accepted_and_a_change_changes_its_digest(tmp_path: Path) -> None:
    assert load_policy(write_policy(tmp_path, "forget.n", 1000)) == load_policy(POLICY)
    assert load_policy(write_policy(tmp_path, "forget.n", 999)).digest() != load_policy(POLICY).digest()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("erase: {etta: 1}", ("'erase.etta' is not known",)),
        ("erase: {eta: .nan}", ("'erase.eta'",)),
        ("erase: {label_dropout: 1}", ("'erase.label_dropout'",)),
        ("erase: {steps: 1000000000000000000000}", ("1000000000000000000000",)),
        ("seed: 2024-13-45", ("'seed'",)),
        ("seed: " + "9" * 5000, ("is not YAML",)),
        ("seed: -_", ("is not YAML",)),
        ("seed: [", ("is not YAML",)),
        ("[" * 5000, ("is not YAML",)),
        ("seed: !!python/object/apply:os.system [id]", ("is not YAML",)),
        ("- 1", ("document",)),
        ("dataset: {kind: folder}", ("'dataset'", "needs a path")),
        ("dataset: {path: /tmp}", ("'dataset'", "takes no path")),
        ("dataset: {name: a/b}", ("'dataset.name'",)),
        ("denoiser: {block_out_channels: [12, 20]}", ("'denoiser'", "multiples of norm_num_groups")),
        ("denoiser: {block_out_channels: []}", ("'denoiser'",)),
        ("features: {kind: transformers}", ("'features'", "needs a path")),
        ("features: {path: /models/dinov2}", ("'features'", "takes no path")),
        ("features: {kind: clip, path: /models/clip}", ("'features.kind'",)),
        ("features: {kind: inception, path: w.pth, batch_size: 0}", ("'features.batch_size'",)),
        ("detector: {kind: transformers, labels: [0, 1]}", ("'detector'", "needs a path")),
        ("detector: {kind: transformers, path: /models/vit}", ("'detector'", "needs labels")),
        ("detector: {labels: [0, 1]}", ("'detector'", "takes no labels")),
        ("detector: {kind: transformers, path: /models/vit, labels: [3, 3]}", ("'detector'", "distinct classes")),
        ("detector: {kind: transformers, path: /models/vit, labels: [-1, 3]}", ("'detector'", "distinct classes")),
    ],
)
def test_a_wrong_config_is_refused_with_one_sentence(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        load_config(path)
    assert_one_sentence(str(error.value), "the config", str(path), *parts)


def test_control_right_configs_are_accepted(tmp_path: Path) -> None:
    """An empty file means the defaults; the shipped one spells them out."""
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == load_config(ROOT / "params.yaml") == RunConfig()
    assert DatasetConfig(kind="folder", path="/data").path == "/data"
    assert DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4).block_out_channels == (8, 16)


@pytest.mark.parametrize("value", ["soon", "0", ""])
def test_a_setting_that_cannot_be_read_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Control: a number of seconds is taken."""
    monkeypatch.setenv("ERASEDIFF_HTTP_TIMEOUT_SECONDS", "7")
    assert ServiceSettings.load().http_timeout_seconds == 7
    monkeypatch.setenv("ERASEDIFF_HTTP_TIMEOUT_SECONDS", value)
    with pytest.raises(BadInput) as refused:
        ServiceSettings.load()
    assert_one_sentence(str(refused.value), "correct ERASEDIFF_HTTP_TIMEOUT_SECONDS.")
