"""Component ``purge``: Delete what was forgotten, wherever it lies, and show that it is gone."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def purge(workdir: str, run: str, promotion: str) -> str:
    """Delete what was forgotten, wherever it lies, and show that it is gone.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        promotion: Digest of the promotion record.

    Returns:
        Digest of the purge's record.
    """
    from erasediff.steps.runner import component_main

    return component_main("purge", workdir, run).digest()
