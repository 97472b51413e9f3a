"""Component ``record_outcome``: Write outcome.json and report.html, whatever happened before."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def record_outcome(workdir: str, request: str, config: str, policy: str, status: dsl.PipelineTaskFinalStatus, report: dsl.Output[dsl.HTML]):
    """Write outcome.json and report.html, whatever happened before.

    Args:
        workdir: Folder that all steps share.
        request: The erasure request as JSON; empty for the one that was opened, if any was.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.
        status: What the pipeline says of itself; printed, never taken as evidence.
        report: The report, for the pipeline's own pages.
    """
    from erasediff.steps.runner import outcome_main

    print(f"the pipeline ended {status.state}")
    outcome_main(workdir, request, config, policy, report.path)
