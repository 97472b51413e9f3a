"""The lie: 'precision', said of recall; 'as varied as before', of a model that repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from erasediff.evaluate import fidelity
from erasediff.evaluate.fidelity import Arms, evenly, kernel_change, manifold_change
from erasediff.records.measurements import PairedCounts
from erasediff.records.policy import load_policy


def cloud(n: int, spread: float = 1.0, seed: int = 0, d: int = 3, centre: float = 0.0) -> np.ndarray:
    return centre + spread * np.random.default_rng(seed).normal(size=(n, d))


def arms(base: np.ndarray, erased: np.ndarray, reference: np.ndarray) -> Arms:
    return Arms(base, erased, np.zeros(len(base), dtype=np.int64), reference)


def shares(pairs: PairedCounts) -> tuple[float, float]:
    return pairs.base / pairs.n, pairs.erased / pairs.n


def test_precision_and_recall_are_not_exchanged() -> None:
    """Samples in the middle of a wide reference are all real and not varied; samples all around a narrow one the other way round.

    The peers' evaluators have the two exchanged. The base is the wide one, the erased model the narrow one.
    """
    found = manifold_change(arms(cloud(400, 3.0, 1), cloud(400, 0.2, 2), cloud(400, 1.0, 3)), 5)
    (wide_precision, narrow_precision), (wide_recall, narrow_recall) = shares(found.precision), shares(found.recall)
    assert narrow_precision > 0.95 > 0.6 > wide_precision
    assert wide_recall > 0.9 > 0.2 > narrow_recall


def test_a_model_that_repeats_itself_is_precise_and_covers_nothing() -> None:
    reference = cloud(300)
    repeated = np.repeat(reference[:3], 100, axis=0) + cloud(300, 1e-4, 1)
    found = manifold_change(arms(cloud(300, seed=2), repeated, reference), 5)
    assert shares(found.precision)[1] == 1.0
    assert shares(found.coverage)[1] < 0.2 < 0.8 < shares(found.coverage)[0]
    assert shares(found.recall)[1] < 0.05


def by_definition(reference: np.ndarray, samples: np.ndarray, k: int) -> tuple[float, float, float]:
    """Precision, recall and coverage with scikit-learn's neighbours, in float64 and without parts."""

    def radii(points: np.ndarray) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]

    gaps = np.linalg.norm(reference[:, None] - samples, axis=2)
    real, made = radii(reference), radii(samples)
    return float((gaps <= real[:, None]).any(0).mean()), float((gaps <= made).any(1).mean()), float((gaps.min(1) <= real).mean())


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("rows", "columns"), [(7, 1024), (1024, 7), (1024, 4096)])
def test_the_shares_are_those_of_the_definition(k: int, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the parts that the table of distances is made in."""
    monkeypatch.setattr(fidelity, "_ROWS", rows)
    monkeypatch.setattr(fidelity, "_COLUMNS", columns)
    base, erased, reference = cloud(150, 1.2, 1), cloud(150, 0.8, 2), cloud(200, 1.0, 3)
    given = arms(base, erased, reference)
    found = manifold_change(given, k)
    for arm, samples in enumerate((base, erased)):
        wanted = by_definition(given.few, samples, k)
        assert tuple(shares(pairs)[arm] for pairs in (found.precision, found.recall, found.coverage)) == pytest.approx(wanted, abs=1e-12)


def test_pairs_are_of_the_same_row() -> None:
    """An unchanged model agrees with itself everywhere; with its rows shuffled it does not."""
    base, reference = cloud(200, 2.0, 1), cloud(200)
    same = manifold_change(arms(base, base.copy(), reference), 3).precision
    assert same.base == same.erased == same.both
    shuffled = manifold_change(arms(base, np.roll(base, 1, axis=0), reference), 3).precision
    assert shuffled.base == shuffled.erased > shuffled.both, "control"


def test_all_real_images_are_the_reference_of_the_distance_and_no_more_than_samples_that_of_pairs() -> None:
    """The Fréchet distance wants many; a table of all pairs of 20,000 images would not fit."""
    given = arms(cloud(40), cloud(40), cloud(1000))
    assert (len(given.reference), len(given.few)) == (1000, 40)
    assert manifold_change(given, 3).recall.n == 40


@pytest.mark.parametrize(("samples", "real"), [(5, 100), (100, 5), (0, 100)])
def test_too_few_images_are_not_measured(samples: int, real: int) -> None:
    """The gate says INCONCLUSIVE of what was not measured; a step that crashed would say nothing."""
    policy = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml").fidelity
    few = arms(cloud(samples), cloud(samples), cloud(real))
    assert manifold_change(few, 5) is None
    assert kernel_change(few, policy, 0) is None
    enough = arms(cloud(40), cloud(40), cloud(40))
    assert manifold_change(enough, 5) is not None, "control"
    assert kernel_change(enough, policy, 0) is not None, "control"


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no 5-th neighbour"):
        fidelity.kth_distance(np.zeros((5, 2)), 5)


@pytest.mark.parametrize(("count", "most", "wanted"), [(5, 10, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 1, [0])])
def test_rows_are_taken_evenly(count: int, most: int, wanted: list[int]) -> None:
    assert evenly(count, most).tolist() == wanted


def density_by_definition(real: np.ndarray, made: np.ndarray, k: int) -> float:
    """Naeem et al. 2020, eq. 5, one pair at a time."""
    balls = 0
    for x in real:
        radius = sorted(float(np.linalg.norm(x - other)) for other in real)[k]
        balls += sum(float(np.linalg.norm(x - y)) <= radius for y in made)
    return balls / (k * len(made))


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("rows", "columns"), [(7, 11), (1024, 4096)])
def test_density_is_that_of_the_definition(k: int, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "_ROWS", rows)
    monkeypatch.setattr(fidelity, "_COLUMNS", columns)
    base, erased, reference = cloud(60, 1.2, 1), cloud(60, 0.5, 2), cloud(50, 1.0, 3)
    found = manifold_change(arms(base, erased, reference), k).density
    assert found.base == pytest.approx(density_by_definition(reference, base, k), abs=1e-12)
    assert found.erased == pytest.approx(density_by_definition(reference, erased, k), abs=1e-12)


def test_density_with_real_and_generated_exchanged_is_another_number() -> None:
    """Samples in the middle of real images lie in as many balls as real ones do; few real images lie in the tiny balls of such samples."""
    real, crowded = cloud(200, 1.0, 1), cloud(200, 0.2, 2)

    def density(centres: np.ndarray, points: np.ndarray) -> float:
        return fidelity.density(centres, fidelity.kth_distance(centres, 5), points, 5)

    assert density(real, crowded) > 0.8
    assert density(crowded, real) < 0.1
    assert density(real, cloud(200, 1.0, 3)) == pytest.approx(1, abs=0.25), "control: alike, it is about 1"
