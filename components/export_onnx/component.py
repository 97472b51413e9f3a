"""Component ``export_onnx``: Export the erased model as one ONNX graph and measure the graph as the model was measured."""

from kfp import dsl

from components.images import PIPELINE_CPU


@dsl.component(base_image=PIPELINE_CPU, packages_to_install=[], install_kfp_package=False)
def export_onnx(workdir: str, run: str) -> bool:
    """Export the erased model as one ONNX graph and measure the graph as the model was measured.

    Args:
        workdir: Folder that all steps share.
        run: The attempt's name.

    Returns:
        Whether the exported graph passed its own checks.
    """
    from erasediff.steps.runner import verdict_main

    return verdict_main("export_onnx", workdir, run)
