"""The components of the pipeline: a step of the table in one of seven shapes.

kfp takes a component's code from the source of its function and runs it alone in a pod, so a shape imports what it calls, spells its types out,
and takes the step's name as a parameter.
"""

from kfp import dsl
from kfp.dsl.component_factory import EXECUTOR_MODULE
from kfp.dsl.python_component import PythonComponent

from components.images import PIPELINE_CPU, TRAIN_GPU
from erasediff.records.core import RegisteredRecord
from erasediff.steps.table import TRAINING, Role, Step


def opens(
    step: str,
    workdir: str,
    request: str,
    config: str,
    policy: str,
    if_busy: str,
    training_cpu: str,
    training_memory: str,
    training_gpus: str,
) -> str:
    """Open an attempt.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        request: The erasure request as JSON, or a list of several, with the class by its position; empty for the next open requests of the ledger.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        if_busy: What to do if another run works in the workdir, fail or skip.
        training_cpu: CPUs of each step that trains, to check that a node has them.
        training_memory: Its memory.
        training_gpus: Its GPUs.

    Returns:
        The attempt's name; empty if no request is open, or if another run is under way and this one skips.
    """
    from erasediff.steps.component import Documents, perform_component

    size = {"cpu": training_cpu, "memory": training_memory, "gpus": training_gpus}
    return perform_component(step, workdir, documents=Documents(request, config, policy, if_busy), size=size).text


def works(step: str, workdir: str, run: str, after: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    """Make a record.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        run: The attempt's name.
        after: Output of the previous step; it only orders the tasks.
        metrics: A few counts and bounds.

    Returns:
        Digest of the record.
    """
    from erasediff.steps.component import perform_component

    done = perform_component(step, workdir, run=run)
    for name, value in done.numbers.items():
        metrics.log_metric(name, value)
    return done.text


def makes_model(step: str, workdir: str, run: str, after: str, metrics: dsl.Output[dsl.Metrics], model: dsl.Output[dsl.Model]) -> str:
    """Make a record of a model.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        run: The attempt's name.
        after: Output of the previous step; it only orders the tasks.
        metrics: A few counts and bounds.
        model: The model's place and description; the bytes stay in the workdir.

    Returns:
        Digest of the record.
    """
    from erasediff.steps.component import perform_component

    done = perform_component(step, workdir, run=run)
    for name, value in done.numbers.items():
        metrics.log_metric(name, value)
    model.metadata.update(done.model)
    return done.text


def makes_model_on_nodes(
    step: str,
    workdir: str,
    run: str,
    after: str,
    training_cpu: str,
    training_memory: str,
    training_gpus: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
) -> str:
    """Make a record of a model, on nodes of its own if the profile says so.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        run: The attempt's name.
        after: Output of the previous step; it only orders the tasks.
        training_cpu: CPUs of each node.
        training_memory: Memory of each node.
        training_gpus: GPUs of each node.
        metrics: A few counts and bounds.
        model: The model's place and description; the bytes stay in the workdir.

    Returns:
        Digest of the record.
    """
    from erasediff.steps.component import perform_component

    done = perform_component(step, workdir, run=run, size={"cpu": training_cpu, "memory": training_memory, "gpus": training_gpus})
    for name, value in done.numbers.items():
        metrics.log_metric(name, value)
    model.metadata.update(done.model)
    return done.text


def promotes(step: str, workdir: str, run: str, after: str, metrics: dsl.Output[dsl.Metrics]) -> bool:
    """Promote, and say whether there are requests to answer.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        run: The attempt's name.
        after: Output of the previous step; it only orders the tasks.
        metrics: A few counts and bounds.

    Returns:
        Whether the attempt has requests.
    """
    from erasediff.steps.component import perform_component

    done = perform_component(step, workdir, run=run)
    for name, value in done.numbers.items():
        metrics.log_metric(name, value)
    return done.go_on


def idles(step: str, workdir: str, config: str, policy: str, if_busy: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    """Run when no request is open.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        if_busy: What to do if another run works in the workdir, fail or skip.
        metrics: A few counts and bounds.

    Returns:
        Digest of the record; empty if there is nothing to do.
    """
    from erasediff.steps.component import Documents, perform_component

    done = perform_component(step, workdir, documents=Documents("", config, policy, if_busy))
    for name, value in done.numbers.items():
        metrics.log_metric(name, value)
    return done.text


def closes(step: str, workdir: str, request: str, config: str, policy: str, report: dsl.Output[dsl.HTML]):
    """Close a run, whatever happened before.

    Args:
        step: The step's name.
        workdir: Folder that all steps share.
        request: The erasure request as JSON; empty for the requests that this run opened, if any.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        report: The report, for the pipeline's own pages.
    """
    from pathlib import Path

    from erasediff.steps.component import Documents, perform_component

    done = perform_component(step, workdir, documents=Documents(request, config, policy))
    if done.report:
        Path(report.path).write_bytes(done.report)


_SHAPES = {
    Role.OPENS: opens,
    Role.WORKS: works,
    Role.DECIDES: works,
    Role.PROMOTES: promotes,
    Role.ANSWERS: works,
    Role.IDLES: idles,
    Role.CLOSES: closes,
}


_EXECUTOR = f"-m {EXECUTOR_MODULE}"
_QUIETLY = f'import logging, runpy; logging.basicConfig(level=logging.ERROR); runpy.run_module("{EXECUTOR_MODULE}", run_name="__main__")'
_QUIET_EXECUTOR = f"-c '{_QUIETLY}'"
"""kfp's executor, which logs all inputs (the request, the configuration and the policy) unless somebody set a level before."""


def component_of(row: Step) -> PythonComponent:
    """The component of a step, under the step's name."""
    of_a_model = row.makes is not None and ("model" in row.makes.model_fields or row.makes is RegisteredRecord)
    shape = makes_model_on_nodes if row.distributed else makes_model if of_a_model else _SHAPES[row.role]
    image = TRAIN_GPU if row.size == TRAINING else PIPELINE_CPU
    component: PythonComponent = dsl.component(base_image=image, packages_to_install=[], install_kfp_package=False)(shape)
    component.component_spec.name = row.command
    component.component_spec.description = row.help
    container = component.component_spec.implementation.container
    assert any(_EXECUTOR in part for part in container.command), "kfp starts its executor in another way now"
    container.command = [part.replace(_EXECUTOR, _QUIET_EXECUTOR) for part in container.command]
    return component
