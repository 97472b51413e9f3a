"""Component ``version_forget_set``: Split the dataset, pack the forget set, version it with DVC and push it to a remote prefix of its own."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def version_forget_set(workdir: str, run: str, base: str) -> str:
    """Split the dataset, pack the forget set, version it with DVC and push it to a remote prefix of its own.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        base: Digest of the base's record.

    Returns:
        The forget set's DVC version.
    """
    from erasediff.steps.runner import component_main

    return component_main("version_forget_set", workdir, run).version
