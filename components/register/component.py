"""Component ``register``: Register the model in MLflow with every digest as a tag and make it the challenger."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def register(workdir: str, run: str) -> str:
    """Register the model in MLflow with every digest as a tag and make it the challenger.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.

    Returns:
        The registered version.
    """
    from erasediff.steps.runner import component_main

    return component_main("register", workdir, run).version
