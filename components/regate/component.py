"""Component ``regate``: Ask the model that serves again for what it has forgotten."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def regate(workdir: str, config: str, policy: str) -> str:
    """Ask the model that serves again for what it has forgotten; the step fails where it does not pass.

    Args:
        workdir: Folder that all steps share.
        config: The run's configuration as JSON.
        policy: The gate's policy as JSON.

    Returns:
        Digest of the verdict's record; empty where no champion has forgotten anything.
    """
    from erasediff.steps.runner import regate_main

    return regate_main(workdir, config, policy)
