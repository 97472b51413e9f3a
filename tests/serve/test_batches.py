"""The lies: 'your image', of somebody else's request; 'accepted', of a request that is never answered; 'bounded', of a queue that is not."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.serve.batches import Batcher, Capacity
from erasediff.serve.request import Limits, Refused, SamplingRequest

SOLVER = "dpm-solver++-10"


def asking(seed: int, count: int = 1) -> SamplingRequest:
    return SamplingRequest(label=0, count=count, seed=seed, solver=SOLVER, guidance=1.0)


class Recorder:
    """Stands in for the sampler: an image is its seed. It can be held, so that requests pile up."""

    def __init__(self) -> None:
        self.batches: list[list[SamplingRequest]] = []
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(self, asked: list[SamplingRequest]) -> np.ndarray:
        self.batches.append(asked)
        self.begun.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        return np.array([seed % 256 for one in asked for seed in one.seeds], dtype=np.uint8).reshape(-1, 1, 1, 1)


@pytest.fixture
def sampler() -> Recorder:
    return Recorder()


def held(sampler: Recorder, capacity: Capacity, **clock) -> tuple[Batcher, Future]:
    """A batcher that is busy with one request."""
    sampler.go.clear()
    batcher = Batcher(sampler, capacity, **clock)
    busy = batcher.submit(asking(0))
    assert sampler.begun.wait(20)
    return batcher, busy


def ask_until_refused(batcher: Batcher) -> None:
    """Another thread is closing it."""
    while True:
        batcher.submit(asking(2)).cancel()


ROOMY = Capacity(batch=8, waiting=100, deadline_seconds=60)


def test_what_waits_together_is_sampled_together_and_each_gets_its_own(sampler: Recorder) -> None:
    batcher, busy = held(sampler, ROOMY)
    answers = [batcher.submit(asking(10 * i, count=i)) for i in (1, 2, 3)]
    assert batcher.waiting == 6
    sampler.go.set()
    assert busy.result(20).ravel().tolist() == [0]
    assert [answer.result(20).ravel().tolist() for answer in answers] == [[10], [20, 21], [30, 31, 32]]
    assert [len(batch) for batch in sampler.batches] == [1, 3]
    batcher.drain()
    assert (batcher.load.images, batcher.load.batches, batcher.load.largest_batch) == (7, 2, 6)


def test_one_client_alone_does_not_wait_for_company(sampler: Recorder) -> None:
    batcher = Batcher(sampler, ROOMY)
    for seed in range(5):
        assert batcher.submit(asking(seed)).result(20).ravel().tolist() == [seed]
    assert [len(batch) for batch in sampler.batches] == [1] * 5
    batcher.drain()


def test_a_batch_is_not_overfilled_and_the_oldest_is_first(sampler: Recorder) -> None:
    batcher, _ = held(sampler, ROOMY)
    for seed, count in enumerate([5, 4, 2, 8, 1], start=1):
        batcher.submit(asking(seed, count))
    sampler.go.set()
    batcher.drain()
    assert [[one.seed for one in batch] for batch in sampler.batches[1:]] == [[1, 3, 5], [2], [4]], "and nobody starves"


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(sampler: Recorder) -> None:
    batcher, _ = held(sampler, Capacity(batch=4, waiting=6, deadline_seconds=60))
    kept = [batcher.submit(asking(seed, count=3)) for seed in (1, 2)]
    with pytest.raises(Refused) as refused:
        batcher.submit(asking(9))
    assert refused.value.status == 429
    assert refused.value.retry_after >= 1
    sampler.go.set()
    assert all(answer.result(20).shape[0] == 3 for answer in kept), "what was accepted is answered"
    assert batcher.submit(asking(9)).result(20).ravel().tolist() == [9], "control: when it is empty again, it takes more"
    batcher.drain()
    assert batcher.load.refused == 1


def test_what_waited_too_long_is_told_so_and_not_sampled(sampler: Recorder) -> None:
    now = [0.0]
    batcher, busy = held(sampler, Capacity(batch=4, waiting=10, deadline_seconds=5), clock=lambda: now[0])
    late = batcher.submit(asking(1))
    now[0] = 4.0
    in_time = batcher.submit(asking(2))
    now[0] = 6.0
    sampler.go.set()
    assert busy.result(20) is not None, "what had begun is finished"
    with pytest.raises(Refused) as refused:
        late.result(20)
    assert refused.value.status == 504
    assert in_time.result(20).ravel().tolist() == [2]
    batcher.drain()
    assert [one.seed for batch in sampler.batches for one in batch] == [0, 2]


def test_a_client_that_has_gone_costs_nothing_and_harms_nobody(sampler: Recorder) -> None:
    batcher, _ = held(sampler, ROOMY)
    gone, there = batcher.submit(asking(1)), batcher.submit(asking(2))
    assert gone.cancel()
    sampler.go.set()
    assert there.result(20).ravel().tolist() == [2]
    batcher.drain()
    assert [one.seed for batch in sampler.batches for one in batch] == [0, 2]


def test_a_batch_that_breaks_down_tells_its_clients_and_the_next_one_is_served(sampler: Recorder) -> None:
    batcher, busy = held(sampler, ROOMY)
    sampler.error = RuntimeError("the provider failed")
    sampler.go.set()
    with pytest.raises(RuntimeError, match="provider"):
        busy.result(20)
    sampler.error = None
    assert batcher.submit(asking(3)).result(20).ravel().tolist() == [3]
    batcher.drain()


def test_draining_answers_what_was_accepted_and_takes_nothing_more(sampler: Recorder) -> None:
    batcher, busy = held(sampler, ROOMY)
    waiting = batcher.submit(asking(1))
    drained = threading.Thread(target=batcher.drain)
    drained.start()
    with pytest.raises(Refused) as refused:
        ask_until_refused(batcher)
    assert refused.value.status == 503
    sampler.go.set()
    drained.join(20)
    assert not drained.is_alive()
    assert (busy.result(0).ravel().tolist(), waiting.result(0).ravel().tolist()) == ([0], [1])


@given(wanted=st.lists(st.tuples(st.integers(0, 255), st.integers(1, 5)), max_size=40), threads=st.integers(1, 6))
def test_under_load_from_many_clients_everybody_gets_the_images_of_their_seeds(wanted, threads: int) -> None:
    batcher = Batcher(Recorder(), Capacity(batch=7, waiting=10**6, deadline_seconds=60))
    answers: list[Future | None] = [None] * len(wanted)

    def client(first: int) -> None:
        for i in range(first, len(wanted), threads):
            answers[i] = batcher.submit(asking(*wanted[i]))

    clients = [threading.Thread(target=client, args=(first,)) for first in range(threads)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(20)
    batcher.drain()
    for (seed, count), answer in zip(wanted, answers, strict=True):
        assert answer is not None
        assert answer.result(0).ravel().tolist() == [(seed + i) % 256 for i in range(count)]
    assert batcher.load.largest_batch <= 7


LIMITS = Limits(max_images=16, max_guidance=20, solver=SOLVER)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 0}, "num_images"),
        ({"count": 17}, "num_images 17"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": 21.0}, "guidance"),
        ({"solver": "euler-3"}, "solver 'euler-3' is not served: ask for dpm-solver"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_a_sentence(change: dict, words: str) -> None:
    good = {"label": 10, "count": 16, "seed": 2**53 - 1, "solver": SOLVER, "guidance": 20.0}
    LIMITS.check(SamplingRequest(**good))
    with pytest.raises(Refused, match=words.replace("+", r"\+")) as refused:
        LIMITS.check(SamplingRequest(**good | change))
    assert refused.value.status == 422
    assert str(refused.value).endswith(".")


def test_a_model_without_a_row_for_no_class_is_asked_for_classes_without_guidance() -> None:
    """Controls: a class without guidance is served, and by a model with such a row everything is."""
    limits = replace(LIMITS, without_null_row=10)
    good = SamplingRequest(label=9, count=1, seed=0, solver=SOLVER, guidance=1.0)
    limits.check(good)
    for asked in (replace(good, label=10), replace(good, guidance=2.0), replace(good, guidance=0.0)):
        LIMITS.check(asked)
        with pytest.raises(Refused, match="without a row for no class"):
            limits.check(asked)
