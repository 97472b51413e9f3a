"""Component ``train_base``: Pin the champion as the base; train and register one where there is none."""

from kfp import dsl

from components.images import TRAIN_GPU


@dsl.component(base_image=TRAIN_GPU, packages_to_install=[], install_kfp_package=False)
def train_base(workdir: str, run: str) -> str:
    """Pin the champion as the base; train and register one where there is none.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.

    Returns:
        Digest of the base's record.
    """
    from erasediff.steps.runner import component_main

    return component_main("train_base", workdir, run).digest()
