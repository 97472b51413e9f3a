"""Intervals the gate decides with: pure functions of counts, scores and feature matrices. All bounds are one-sided."""

from erasediff.evaluate.statistics.auc import Equivalence, equivalence, equivalence_to_chance, membership_auc, required_members
from erasediff.evaluate.statistics.clusters import clustered_upper
from erasediff.evaluate.statistics.frechet import (
    FrechetDifference,
    bias_corrected_upper,
    frechet_difference,
    frechet_distance,
)
from erasediff.evaluate.statistics.kernel import KernelDifference, kernel_difference, kernel_distance, mean_upper
from erasediff.evaluate.statistics.rates import (
    binomial_lower,
    binomial_upper,
    difference_lower,
    difference_upper,
    paired_difference_lower,
    pairs_needed,
)
from erasediff.evaluate.statistics.tables import Chosen, Features, Table, parts

__all__ = [
    "Chosen",
    "Equivalence",
    "Features",
    "FrechetDifference",
    "KernelDifference",
    "Table",
    "bias_corrected_upper",
    "binomial_lower",
    "binomial_upper",
    "clustered_upper",
    "difference_lower",
    "difference_upper",
    "equivalence",
    "equivalence_to_chance",
    "frechet_difference",
    "frechet_distance",
    "kernel_difference",
    "kernel_distance",
    "mean_upper",
    "membership_auc",
    "paired_difference_lower",
    "pairs_needed",
    "parts",
    "required_members",
]
