"""Dynamic batching: waiting requests are sampled together, each from its own seeds.

When the sampler is free, it takes the waiting requests as the next batch and never waits for more. So a single client gets the latency of one image,
and many clients get the throughput of full batches. The queue is bounded: further requests are refused at once, with a time to retry.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from erasediff.serve.request import Refused, SamplingRequest

Images = NDArray[np.uint8]
Sampler = Callable[[list[SamplingRequest]], Images]
"""Images ``uint8 [N,H,W,C]`` of several requests, in their order; N is the sum of their counts."""


@dataclass(frozen=True)
class Capacity:
    """The size of a batch, the size of the queue, and the longest wait."""

    batch: int
    waiting: int
    deadline_seconds: float


@dataclass
class Load:
    """Counters for the metrics."""

    batches: int = 0
    images: int = 0
    refused: int = 0
    late: int = 0
    busy_seconds: float = 0.0
    largest_batch: int = 0


@dataclass
class _Job:
    asked: SamplingRequest
    due: float
    answer: Future[Images] = field(default_factory=Future)


class Batcher:
    """A queue and one sampling thread. The clock is a parameter only for tests."""

    def __init__(self, sampler: Sampler, capacity: Capacity, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampler, self._capacity, self._clock = sampler, capacity, clock
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.load = Load()
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        with self._changed:
            return self._images_waiting()

    def submit(self, asked: SamplingRequest) -> Future[Images]:
        """Queue a request; the future holds its images ``uint8 [count,H,W,C]``, or :class:`Refused` if it waited too long.

        Raises:
            Refused: 429 if the queue is full, 503 if the server is shutting down.
        """
        with self._changed:
            if self._closed:
                raise Refused(503, "the server is shutting down: retry, and another one will answer.", retry_after=1)
            if self._jobs and self._images_waiting() + asked.count > self._capacity.waiting:
                self.load.refused += 1
                raise Refused(429, "too many requests are waiting: retry later.", retry_after=self._seconds_to_clear())
            job = _Job(asked, self._clock() + self._capacity.deadline_seconds)
            self._jobs.append(job)
            self._changed.notify()
            return job.answer

    def drain(self) -> None:
        """Refuse new requests, finish the waiting ones, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _images_waiting(self) -> int:
        return sum(job.asked.count for job in self._jobs)

    def _seconds_to_clear(self) -> int:
        """How long the queue will take at the current pace."""
        pace = self.load.busy_seconds / self.load.images if self.load.images else 0.0
        return max(1, math.ceil(pace * self._images_waiting()))

    def _work(self) -> None:
        while jobs := self._next_batch():
            self._sample(jobs)

    def _next_batch(self) -> list[_Job]:
        """The next requests to sample; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._drop_late()
                if not self._jobs:
                    if self._closed:
                        return []
                    continue
                if taken := [job for job in self._take() if job.answer.set_running_or_notify_cancel()]:  # skip requests whose client has gone
                    return taken

    def _take(self) -> list[_Job]:
        """The oldest request, and later ones that fit into the batch."""
        first = self._jobs.popleft()
        taken, room, left = [first], self._capacity.batch - first.asked.count, deque[_Job]()
        for job in self._jobs:
            fits = job.asked.count <= room
            (taken if fits else left).append(job)
            room -= job.asked.count if fits else 0
        self._jobs = left
        return taken

    def _drop_late(self) -> None:
        now = self._clock()
        late = [job for job in self._jobs if job.due <= now]
        self._jobs = deque(job for job in self._jobs if job.due > now)
        for job in late:
            self.load.late += 1
            if job.answer.set_running_or_notify_cancel():
                job.answer.set_exception(Refused(504, "the request waited too long: retry later.", retry_after=1))

    def _sample(self, jobs: list[_Job]) -> None:
        started = self._clock()
        try:
            images = self._sampler([job.asked for job in jobs])
        except Exception as error:  # only this batch fails: the thread must go on
            for job in jobs:
                job.answer.set_exception(error)
            return
        self._count(len(images), self._clock() - started)
        first = 0
        for job in jobs:
            job.answer.set_result(images[first : first + job.asked.count])
            first += job.asked.count

    def _count(self, images: int, seconds: float) -> None:
        with self._changed:
            load = self.load
            load.batches, load.images, load.busy_seconds = load.batches + 1, load.images + images, load.busy_seconds + seconds
            load.largest_batch = max(load.largest_batch, images)
