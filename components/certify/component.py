"""Component ``certify``: Issue the signed certificate of a run that passed."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def certify(workdir: str, run: str, done: str) -> str:
    """Issue the signed certificate of a run that passed: provisional until its purge is complete, then final.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.
        done: Digest of the promotion's record, or of the purge's.

    Returns:
        Digest of the certificate's record.
    """
    from erasediff.steps.runner import component_main

    return component_main("certify", workdir, run).digest()
