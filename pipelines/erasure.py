"""The erasure pipeline: a request goes in; a gated, exported, registered and promoted model comes out, with its outcome."""

from kfp import dsl

from components.check_prerequisites.component import check_prerequisites
from components.erase.component import erase
from components.evaluate.component import evaluate
from components.export_onnx.component import export_onnx
from components.gate.component import gate
from components.promote.component import promote
from components.record_outcome.component import record_outcome
from components.register.component import register
from components.train_base.component import train_base
from components.version_forget_set.component import version_forget_set
from pipelines.settings import MEDIUM, SMALL, TRAINING, WORKDIR_MOUNT, configure


@dsl.pipeline(name="erasure", description="Erase a class from a diffusion model and promote the result if it passes the gate.")
def erasure(request: str, config: str, policy: str, workdir: str = WORKDIR_MOUNT) -> None:
    """Erase, gate, export, register and promote.

    Args:
        request: The erasure request as JSON.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        workdir: Folder that all steps share.
    """
    outcome = configure(record_outcome(workdir=workdir, request=request, config=config, policy=policy), SMALL)
    with dsl.ExitHandler(outcome, name="erasure"):
        run = configure(check_prerequisites(workdir=workdir, request=request, config=config, policy=policy), SMALL).output
        base = configure(train_base(workdir=workdir, run=run), TRAINING).output
        forget_set = configure(version_forget_set(workdir=workdir, run=run, base=base), SMALL).output
        erased = configure(erase(workdir=workdir, run=run, forget_set_version=forget_set), TRAINING).output
        measurements = configure(evaluate(workdir=workdir, run=run, erased=erased), TRAINING).output
        # The gate has one unnamed output: a condition on a named one is silently false in the local runner.
        passed = configure(gate(workdir=workdir, run=run, measurements=measurements), SMALL)
        with dsl.If(passed.output == True, name="passed"):  # noqa: E712 - kfp builds the condition from the operator
            exported = configure(export_onnx(workdir=workdir, run=run), MEDIUM)
            with dsl.If(exported.output == True, name="exported"):  # noqa: E712
                version = configure(register(workdir=workdir, run=run), SMALL).output
                configure(promote(workdir=workdir, run=run, version=version), SMALL)
