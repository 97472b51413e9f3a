"""Component ``evaluate``: Sample base and erased model with the committed seeds and measure what the policy asks about."""

from kfp import dsl

from components.images import TRAIN_GPU


@dsl.component(base_image=TRAIN_GPU, packages_to_install=[], install_kfp_package=False)
def evaluate(workdir: str, run: str, erased: str) -> str:
    """Sample base and erased model with the committed seeds and measure what the policy asks about.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        erased: Digest of the erased model's record.

    Returns:
        Digest of the measurements.
    """
    from erasediff.steps.runner import component_main

    return component_main("evaluate", workdir, run).digest()
