"""The erasure pipeline, from the table of steps: a request goes in; a gated, exported, registered and promoted model comes out, with its outcome.

If the ledger has requests for the erased labels, the purge deletes their data afterwards. A provisional certificate comes before the purge, the final
one after it.
"""

from contextlib import ExitStack

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from erasediff.steps.table import Role, step_for, work_steps
from pipelines.tasks import WORKDIR_MOUNT, Profile, Training, compiled_for, task_of


def erasure_for(profile: Profile) -> BaseComponent:
    """The pipeline as a profile has it; kfp traces the function while the profile is in force."""
    size = profile.training

    def erasure(
        request: str,
        config: str,
        policy: str,
        workdir: str = WORKDIR_MOUNT,
        if_busy: str = "fail",
        training_cpu: str = size.cpu,
        training_memory: str = size.memory,
        training_gpus: str = str(size.gpus),
    ) -> None:
        """Erase, gate, export, register, roll out and promote.

        Args:
            request: The request as JSON, or a list, a class by its position; empty for the ledger's next ones, or to re-run the gate if none is open.
            config: The run's configuration as JSON.
            policy: The gate's policy as JSON.
            workdir: Folder that all steps share.
            if_busy: What to do if another run works in the workdir: fail, or skip as a schedule's runs do.
            training_cpu: CPUs of each step that trains or samples, such as 2 or 500m.
            training_memory: Its memory, such as 4Gi.
            training_gpus: Its GPUs; 0 where the profile has none.
        """
        documents = {"config": config, "policy": policy}
        _erasure(request, documents, workdir, if_busy, Training(training_cpu, training_memory, training_gpus))

    decorate = dsl.pipeline(name="erasure", description="Erase a class from a diffusion model and promote the result if it passes the gate.")
    with compiled_for(profile):
        return decorate(erasure)


def _erasure(request: str, documents: dict[str, str], workdir: str, if_busy: str, training: Training) -> None:
    outcome = task_of(step_for(Role.CLOSES), training, workdir=workdir, request=request, **documents)
    with dsl.ExitHandler(outcome, name="erasure"):
        run = task_of(step_for(Role.OPENS), training, workdir=workdir, request=request, if_busy=if_busy, **documents).output
        with dsl.If(run == "", name="no-request"):
            task_of(step_for(Role.IDLES), training, workdir=workdir, if_busy=if_busy, **documents)
        with ExitStack() as inside:
            inside.enter_context(dsl.If(run != "", name="has-request"))
            after = run
            for row in work_steps():
                # What a function returns is the output "Output", beside its artifacts. A condition on any other name is silently false in kfp's
                # local runner.
                output = task_of(row, training, workdir=workdir, run=run, after=after).outputs["Output"]
                if row.role is Role.PROMOTES:
                    inside.enter_context(dsl.If(output == True, name=f"after-{row.command}"))  # noqa: E712 - kfp builds it from the operator
                after = run if row.role is Role.PROMOTES else output
