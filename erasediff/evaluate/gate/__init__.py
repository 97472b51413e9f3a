"""The gate: a pure function from policy and measurements to PASS, FAIL or INCONCLUSIVE.

A check passes only on a number that was measured on enough samples. Whatever is missing, is not finite, or comes from
too few samples is INCONCLUSIVE. C0 asks whether the gate could have failed at all, and whether it can pass: the base must be
caught by F1, and a model that was only trained on must not be.
"""

from erasediff.evaluate.gate.decide import Decision, final_verdict, overall, run_export_gate, run_gate
from erasediff.evaluate.gate.history import History, drift_after
from erasediff.evaluate.gate.prompts import run_prompt_gate
from erasediff.evaluate.gate.regate import run_regate

__all__ = ["Decision", "History", "drift_after", "final_verdict", "overall", "run_export_gate", "run_gate", "run_prompt_gate", "run_regate"]
