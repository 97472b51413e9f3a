"""The lies: 'these seeds were fixed before the erasure', and 'the number of workers does not matter'."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from erasediff.evaluate import sampling
from erasediff.evaluate.sampling import Source, draw_batches, draw_samples
from erasediff.evaluate.seeds import check_seeds, evaluation_key, secret_key, seed_commitment
from erasediff.progress import FILE_VARIABLE
from erasediff.records.base import canonical_json
from erasediff.records.config import SamplerConfig
from tests.small_models import model_of

LABELS, SEEDS = torch.arange(23) % 10, check_seeds(evaluation_key(0), "F1", 23)


def test_the_commitment_is_the_digest_of_the_key_that_the_seeds_come_from() -> None:
    """Whoever holds the key can compute both without this package."""
    key = evaluation_key(5)
    assert seed_commitment(key) == hashlib.sha256(key).hexdigest()
    wanted = [int.from_bytes(hmac.digest(key, f"F1|{i}".encode(), "sha256")[:8], "big") // 2**11 for i in range(3)]
    assert check_seeds(key, "F1", 3) == wanted


def test_no_two_attempts_have_the_same_key() -> None:
    assert len({secret_key() for _ in range(100)}) == 100
    assert len(secret_key()) == 32


def test_seeds_are_a_function_of_key_check_and_index() -> None:
    key = evaluation_key(0)
    assert check_seeds(key, "F1", 50) == check_seeds(key, "F1", 100)[:50]
    assert check_seeds(evaluation_key(1), "F1", 50) != check_seeds(key, "F1", 50)


def test_no_image_is_shared_between_checks() -> None:
    """A check that reused another's images would count one piece of evidence twice."""
    key = evaluation_key(0)
    checks = [check_seeds(key, check, 1000) for check in ("F1", "F1.1", "F8", "R", "C0")]
    assert len(set().union(*checks)) == 5000


def test_seeds_are_exact_in_canonical_json() -> None:
    """Below 2^53, so that a record, and anyone's JSON parser, can hold them."""
    seeds = check_seeds(evaluation_key(3), "R1", 5000)
    assert min(seeds) >= 0
    assert 2**52 < max(seeds) < 2**53
    assert json.loads(canonical_json(seeds)) == seeds


@pytest.fixture(scope="module")
def source(tiny_unet) -> Source:
    pipeline = model_of(tiny_unet())
    return pipeline.source(torch.device("cpu"))


def draw(source: Source, workers: int = 1, batch_size: int = 5, seeds: list[int] = SEEDS) -> Tensor:
    return draw_samples(source, LABELS, seeds, SamplerConfig(steps=3, workers=workers, batch_size=batch_size), "test")


def test_the_number_of_workers_changes_nothing(source: Source) -> None:
    alone = draw(source, workers=1)
    assert alone.shape == (23, 8, 8, 1)
    assert torch.equal(draw(source, workers=4), alone)
    assert not torch.equal(draw(source, workers=4, seeds=SEEDS[::-1]), alone), "control"


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_the_batch_size_changes_at_most_one_grey_level(source: Source, batch_size: int) -> None:
    """Rows stay in order; see test_sampler.py for why not to the bit."""
    difference = (draw(source, batch_size=batch_size).int() - draw(source).int()).abs()
    assert difference.max() <= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_batches_are_made_ahead_than_there_are_workers(source: Source, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Or all images would be in memory before the first was looked at."""
    started = []

    def counted(*arguments: object) -> Tensor:
        started.append(arguments[-1])
        return torch.zeros(1)

    monkeypatch.setattr(sampling, "_one_batch", counted)
    config = SamplerConfig(steps=3, workers=workers, batch_size=1)
    for taken, _ in enumerate(draw_batches(source, LABELS, SEEDS, config, "test"), 1):
        assert len(started) <= taken + workers
    assert sorted(started) == list(range(23))


def test_progress_is_told_to_the_end(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches a run sees 23 of 23 and never more, with threads as well."""
    events = tmp_path / "progress.jsonl"
    monkeypatch.setenv(FILE_VARIABLE, str(events))
    draw(source, workers=3)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert {(event["what"], event["total"]) for event in told} == {("test", 23)}
    done = [event["done"] for event in told]
    assert done == sorted(done)
    assert done[-1] == 23
