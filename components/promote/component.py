"""Component ``promote``: Write the promotion record, then make the challenger the champion."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def promote(workdir: str, run: str, version: str, rolled_out: str) -> bool:
    """Write the promotion record, then make the challenger the champion.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        version: The registered version.
        rolled_out: Digest of the roll-out's record.

    Returns:
        Whether the attempt answers requests, so that a purge and a certificate are due.
    """
    from erasediff.steps.runner import promote_main

    return promote_main(workdir, run)
