"""What is committed as compiled is what the source compiles to, and says what the cluster must do."""

import yaml

from components import catalogue, images
from pipelines.compile import COMPILED, compile_all

NEVER_CACHED = set(catalogue.STEPS)


def compiled_tasks():
    spec, platform = yaml.safe_load_all((COMPILED / "erasure.yaml").read_text())
    tasks = {}
    for dag in [spec["root"], *spec["components"].values()]:
        tasks |= dag.get("dag", {}).get("tasks", {})
    return spec, platform, tasks


def test_the_committed_file_is_what_the_source_compiles_to(tmp_path):
    (path,) = compile_all(tmp_path)
    assert path.read_bytes() == (COMPILED / "erasure.yaml").read_bytes()


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    (first,), (second,) = compile_all(tmp_path / "a"), compile_all(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_no_step_is_cached_by_the_backend():
    """A cached gate or promotion would repeat yesterday's answer for today's model."""
    _, _, tasks = compiled_tasks()
    steps = {name.replace("-", "_"): task for name, task in tasks.items()}
    for step in NEVER_CACHED:
        assert steps[step].get("cachingOptions", {}).get("enableCache", False) is False


def test_conditions_hang_on_the_unnamed_output_of_the_gate_and_of_the_export():
    _, _, tasks = compiled_tasks()
    conditions = [t["triggerPolicy"]["condition"] for t in tasks.values() if "condition" in t.get("triggerPolicy", {})]
    assert sorted(conditions) == [
        "inputs.parameter_values['pipelinechannel--export-onnx-Output'] == true",
        "inputs.parameter_values['pipelinechannel--gate-Output'] == true",
    ]


def test_every_image_is_one_of_the_constants_and_none_is_latest():
    spec, _, _ = compiled_tasks()
    used = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()}
    assert used == {images.PIPELINE_CPU, images.TRAIN_GPU}
    assert not any(image.endswith(":latest") or ":" not in image for image in used)


def test_every_task_shares_the_workdir_volume():
    _, platform, _ = compiled_tasks()
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(mounted) == len(catalogue.STEPS)
    assert all(e["pvcMount"][0]["mountPath"] == "/workdir" for e in mounted.values())


def test_component_readmes_are_generated_from_their_code():
    for step in catalogue.STEPS:
        assert (catalogue.HERE / step / "README.md").read_text() == catalogue.readme(step)


def test_the_report_is_the_only_artifact_that_the_backend_keeps():
    """It holds digests, counts and samples of retained classes. Forget images must never become artifacts: those outlive their runs."""
    spec, _, _ = compiled_tasks()
    artifacts = {
        (name, artifact): kind["artifactType"]["schemaTitle"]
        for name, component in spec["components"].items()
        for artifact, kind in component.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert artifacts == {("comp-record-outcome", "report"): "system.HTML"}
