"""The gate: a pure function from policy and measurements to PASS, FAIL or INCONCLUSIVE.

A check passes only on a number that was measured on enough samples. A value that is missing, not finite, or from too few samples makes it
INCONCLUSIVE. The controls C0 test the gate itself: the base must fail F1, and the base after a little more training must pass R1 to R3.
"""

from erasediff.evaluate.gate.decide import Decision, final_verdict, overall, run_export_gate, run_gate
from erasediff.evaluate.gate.history import History, drift_after
from erasediff.evaluate.gate.prompts import run_prompt_gate
from erasediff.evaluate.gate.regate import run_regate

__all__ = ["Decision", "History", "drift_after", "final_verdict", "overall", "run_export_gate", "run_gate", "run_prompt_gate", "run_regate"]
