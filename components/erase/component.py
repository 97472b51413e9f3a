"""Component ``erase``: Make the base forget with EraseDiff; a killed step goes on from its checkpoint."""

from kfp import dsl

from components.images import TRAIN_GPU


@dsl.component(base_image=TRAIN_GPU, packages_to_install=[], install_kfp_package=False)
def erase(workdir: str, run: str, forget_set_version: str) -> str:
    """Make the base forget with EraseDiff; a killed step goes on from its checkpoint.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        forget_set_version: The forget set's DVC version.

    Returns:
        Digest of the erased model's record.
    """
    from erasediff.steps.runner import erase_main

    return erase_main(workdir, run).digest()
