"""Component ``roll_out``: Bring the exported model up beside the champion, and promote it there or roll back."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def roll_out(workdir: str, run: str, version: str) -> str:
    """Bring the exported model up beside the champion, and promote it there or roll back.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        version: The registered version.

    Returns:
        Digest of the roll-out's record.
    """
    from erasediff.steps.runner import component_main

    return component_main("roll_out", workdir, run).digest()
