"""Component ``check_prerequisites``: Open an attempt after checking everything that can be wrong before the work starts."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def check_prerequisites(workdir: str, request: str, config: str, policy: str) -> str:
    """Open an attempt after checking everything that can be wrong before the work starts.

    Args:
        workdir: Folder that all steps share.
        request: The erasure request as JSON, or a list of several; empty for what the ledger owes first.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.

    Returns:
        The attempt's name; empty where nothing is asked.
    """
    from erasediff.steps.runner import open_main

    return open_main(workdir, request, config, policy)
