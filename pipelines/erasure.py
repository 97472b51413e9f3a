"""The erasure pipeline: a request goes in; a gated, exported, registered and promoted model comes out, with its outcome.

Where the ledger has requests for what is erased, what was forgotten is purged afterwards, and a certificate says so: a provisional one before the
purge, the final one after it.
"""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.certify.component import certify
from components.check_prerequisites.component import check_prerequisites
from components.erase.component import erase
from components.evaluate.component import evaluate
from components.export_onnx.component import export_onnx
from components.gate.component import gate
from components.promote.component import promote
from components.purge.component import purge
from components.record_outcome.component import record_outcome
from components.regate.component import regate
from components.register.component import register
from components.roll_out.component import roll_out
from components.train_base.component import train_base
from components.version_forget_set.component import version_forget_set
from pipelines.tasks import WORKDIR_MOUNT, Profile, compiled_for, configure


def erasure(request: str, config: str, policy: str, workdir: str = WORKDIR_MOUNT) -> None:
    """Erase, gate, export, register, roll out and promote.

    Args:
        request: The erasure request as JSON, or a list; empty for what the ledger owes first, and where that is nothing what serves is judged again.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        workdir: Folder that all steps share.
    """
    outcome = configure(record_outcome(workdir=workdir, request=request, config=config, policy=policy))
    with dsl.ExitHandler(outcome, name="erasure"):
        run = configure(check_prerequisites(workdir=workdir, request=request, config=config, policy=policy)).output
        with dsl.If(run == "", name="nothing-asked"):
            configure(regate(workdir=workdir, config=config, policy=policy))
        with dsl.If(run != "", name="asked"):
            base = configure(train_base(workdir=workdir, run=run)).output
            forget_set = configure(version_forget_set(workdir=workdir, run=run, base=base)).output
            erased = configure(erase(workdir=workdir, run=run, forget_set_version=forget_set)).output
            measurements = configure(evaluate(workdir=workdir, run=run, erased=erased)).output
            # The gate has one unnamed output: a condition on a named one is silently false in the local runner.
            passed = configure(gate(workdir=workdir, run=run, measurements=measurements))
            with dsl.If(passed.output == True, name="passed"):  # noqa: E712 - kfp builds the condition from the operator
                exported = configure(export_onnx(workdir=workdir, run=run))
                with dsl.If(exported.output == True, name="exported"):  # noqa: E712
                    version = configure(register(workdir=workdir, run=run)).output
                    rolled_out = configure(roll_out(workdir=workdir, run=run, version=version)).output
                    answers = configure(promote(workdir=workdir, run=run, version=version, rolled_out=rolled_out))
                    with dsl.If(answers.output == True, name="answers-requests"):  # noqa: E712
                        provisional = configure(certify(workdir=workdir, run=run, done=version))
                        purged = configure(purge(workdir=workdir, run=run, promotion=version)).after(provisional)
                        configure(certify(workdir=workdir, run=run, done=purged.output))


def erasure_for(profile: Profile) -> BaseComponent:
    """The pipeline as a profile has it; kfp traces the function while the profile is in force."""
    decorate = dsl.pipeline(name="erasure", description="Erase a class from a diffusion model and promote the result if it passes the gate.")
    with compiled_for(profile):
        return decorate(erasure)
