"""Component ``gate``: Decide PASS, FAIL or INCONCLUSIVE from policy and measurements; only PASS is true."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def gate(workdir: str, run: str, measurements: str) -> bool:
    """Decide PASS, FAIL or INCONCLUSIVE from policy and measurements; only PASS is true.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        measurements: Digest of the measurements.

    Returns:
        Whether the verdict is PASS, in a batch that of every attempt.
    """
    from erasediff.steps.runner import verdict_main

    return verdict_main("gate", workdir, run)
