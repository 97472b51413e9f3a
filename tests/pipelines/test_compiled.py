"""What is committed as compiled is what the source compiles to, and says what the cluster must do."""

import dataclasses
import re

import pytest
import yaml

from components import catalogue, images
from erasediff.steps import table
from erasediff.steps.table import MEDIUM, STEPS
from pipelines.compile import COMPILED, file_name, write
from pipelines.tasks import LOCAL, PROFILES

ROWS = {row.command: row for row in STEPS}
FILES = [file_name(profile) for profile in (LOCAL, *PROFILES)]
HARDENED = [file_name(profile) for profile in PROFILES]
TRAINING = {"exec-train-base", "exec-erase", "exec-evaluate"}


def compiled_tasks(name="erasure.yaml"):
    spec, platform = yaml.load_all((COMPILED / name).read_text(), yaml.CSafeLoader)
    tasks = {}
    for dag in [spec["root"], *spec["components"].values()]:
        tasks |= dag.get("dag", {}).get("tasks", {})
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"], tasks


def containers(spec):
    return {name: executor["container"] for name, executor in spec["deploymentSpec"]["executors"].items()}


def on_gpus(spec):
    return {name for name, c in containers(spec).items() if "accelerator" in c.get("resources", {})}


def parameters(spec):
    """The pipeline's parameters with a default."""
    return {name: p["defaultValue"] for name, p in spec["root"]["inputDefinitions"]["parameters"].items() if "defaultValue" in p}


def resolved(spec, inputs, dag, executor):
    """What an executor's resources come to, by the inputs that its task gets: None for one that the tasks around it do not hand down."""
    for task in dag["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        given = {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            given[name] = source["runtimeValue"]["constant"] if "runtimeValue" in source else inputs.get(source.get("componentInputParameter"))
        if component.get("executorLabel") == executor:
            asked = containers(spec)[executor]["resources"]
            asked = {**asked, **asked.get("accelerator", {})}
            references = {name: re.fullmatch(r"\{\{\$\.inputs\.parameters\['(.*)'\]\}\}", str(value)) for name, value in asked.items()}
            return {name: given.get(match[1]) if match else asked[name] for name, match in references.items()}
        if "dag" in component and (found := resolved(spec, given, component["dag"], executor)) is not None:
            return found
    return None


def test_a_file_is_committed_for_each_profile_and_no_other():
    assert sorted(p.name for p in COMPILED.glob("*")) == sorted(FILES)


@pytest.mark.thorough
def test_the_committed_files_are_what_the_source_compiles_to(tmp_path):
    """The one that runs here; kfp takes ten seconds for each, so all are held against the source by `make compile` in .ci/run."""
    write(tmp_path / "erasure.yaml", LOCAL)
    assert (tmp_path / "erasure.yaml").read_bytes() == (COMPILED / "erasure.yaml").read_bytes()


@pytest.mark.thorough
def test_a_changed_row_is_a_drift(tmp_path, monkeypatch):
    """Control: the comparison sees that one task has another size."""
    monkeypatch.setattr(table, "STEPS", tuple(dataclasses.replace(row, size=MEDIUM) if row.name == "gate" else row for row in STEPS))
    write(tmp_path / "erasure.yaml", LOCAL)
    assert (tmp_path / "erasure.yaml").read_bytes() != (COMPILED / "erasure.yaml").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_no_step_is_cached_by_the_backend(name):
    """A cached gate or promotion would repeat yesterday's answer for today's model."""
    _, _, tasks = compiled_tasks(name)
    for command in ROWS:
        assert tasks[command].get("cachingOptions", {}).get("enableCache", False) is False


@pytest.mark.parametrize("name", FILES)
def test_conditions_hang_on_unnamed_outputs(name):
    _, _, tasks = compiled_tasks(name)
    conditions = [t["triggerPolicy"]["condition"] for t in tasks.values() if "condition" in t.get("triggerPolicy", {})]
    assert sorted(conditions) == [
        "inputs.parameter_values['pipelinechannel--check-prerequisites-Output'] != ''",
        "inputs.parameter_values['pipelinechannel--check-prerequisites-Output'] == ''",
        "inputs.parameter_values['pipelinechannel--promote-Output'] == true",
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_image_is_one_of_the_constants_and_none_is_latest(name):
    used = {c["image"] for c in containers(compiled_tasks(name)[0]).values()}
    assert used == ({images.PIPELINE_CPU} if name == "erasure-cpu.yaml" else {images.PIPELINE_CPU, images.TRAIN_GPU})
    assert not any(image.endswith(":latest") or ":" not in image for image in used)


@pytest.mark.parametrize("name", FILES)
def test_every_task_shares_the_workdir_volume_and_ends_by_a_deadline(name):
    _, mounted, _ = compiled_tasks(name)
    assert len(mounted) == len(STEPS) + 1, "certify is there twice: before the purge and after it"
    assert all(e["pvcMount"][0]["mountPath"] == "/workdir" for e in mounted.values())
    assert all(int(e["activeDeadlineSeconds"]) > 0 for e in mounted.values())


@pytest.mark.parametrize("name", FILES)
def test_every_task_asks_for_resources_and_has_a_title_of_its_own(name):
    spec, _, tasks = compiled_tasks(name)
    for container in containers(spec).values():
        resources = container["resources"]
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
    titles = {n: t["taskInfo"]["name"] for n, t in tasks.items() if n in ROWS}
    assert titles == {command: row.title for command, row in ROWS.items()}


@pytest.mark.parametrize("name", HARDENED)
def test_no_task_of_a_cluster_runs_as_root(name):
    for executor in compiled_tasks(name)[1].values():
        assert executor["securityContext"] == {"runAsUser": "10001", "runAsGroup": "0", "runAsNonRoot": True}


@pytest.mark.parametrize("name", HARDENED)
def test_steps_that_train_have_shared_memory_and_no_others(name):
    _, executors, _ = compiled_tasks(name)
    with_memory = {step for step, e in executors.items() if "emptyDirMounts" in e}
    assert with_memory == TRAINING
    assert all(executors[s]["emptyDirMounts"][0]["medium"] == "Memory" for s in with_memory)


def test_gpus_are_asked_for_where_they_are_used_and_tolerated_there():
    """A CPU profile that asks for a GPU never starts; a task that only waits must not hold one."""
    for name, wanted in {"erasure-cpu.yaml": set(), "erasure-gpu.yaml": TRAINING, "erasure-gpu-multi.yaml": TRAINING - {"exec-erase"}}.items():
        spec, executors, _ = compiled_tasks(name)
        assert on_gpus(spec) == wanted
        assert {step for step, e in executors.items() if "tolerations" in e} == wanted


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_the_size_of_a_run_reaches_every_step_that_trains_and_no_other(profile):
    """kfp 2.17 leaves a parameter that only resources name out of the conditions around a task, and the backend then fails the task."""
    spec, _, _ = compiled_tasks(file_name(profile))
    size = profile.training
    sizes = {"training_cpu": size.cpu, "training_memory": size.memory, "training_gpus": str(size.gpus)}
    assert parameters(spec) == {"workdir": "/workdir", "if_busy": "fail"} | sizes
    for step in TRAINING - ({"exec-erase"} if profile.erasing_nodes else set()):
        found = resolved(spec, {"training_cpu": "3", "training_memory": "9Gi", "training_gpus": "5"}, spec["root"]["dag"], step)
        assert {found[f"resourceCpu{kind}"] for kind in ("Request", "Limit")} == {"3"}
        assert {found[f"resourceMemory{kind}"] for kind in ("Request", "Limit")} == {"9Gi"}
        assert found.get("resourceCount") == ("5" if size.gpus else None)
    assert resolved(spec, {}, spec["root"]["dag"], "exec-train-base")["resourceCpuLimit"] is None, "control: what is not handed down is seen"
    assert resolved(spec, {}, spec["root"]["dag"], "exec-gate")["resourceCpuLimit"] == "1"


@pytest.mark.parametrize("name", FILES)
def test_no_step_counts_on_kubeflow_and_every_step_is_told_how_long_to_try_again(name):
    """A retry policy would promise what Kubeflow Pipelines 2.17 does not do: it runs no step again that ended with an exit code."""
    _, executors, tasks = compiled_tasks(name)
    assert set(ROWS) <= set(tasks), "control: these are the steps"
    assert not [step for step, task in tasks.items() if "retryPolicy" in task]
    for executor in executors.values():
        assert "ERASEDIFF_RETRY_MINUTES" in {k["envVar"] for source in executor["configMapAsEnv"] for k in source["keyToEnv"]}


@pytest.mark.parametrize("name", FILES)
def test_credentials_are_named_never_written_and_the_gate_cannot_write_to_a_store(name):
    spec, executors, _ = compiled_tasks(name)
    keys = {step: {k["secretKey"] for s in e.get("secretAsEnv", []) for k in s["keyToEnv"]} for step, e in executors.items()}
    assert keys["exec-gate"] == keys["exec-promote"] == {"MLFLOW_TRACKING_TOKEN", "ERASEDIFF_LEDGER"}
    assert keys["exec-export-onnx"] == keys["exec-certify"] == {"ERASEDIFF_LEDGER", "ERASEDIFF_SIGNING_PASSPHRASE"}
    signing = {step.removesuffix("-2") for step, e in executors.items() if "secretAsVolume" in e}
    assert signing == {"exec-certify", "exec-export-onnx"}, "nothing else may sign"
    assert {step for step, e in executors.items() if "configMapAsVolume" in e} == {"exec-roll-out", "exec-promote"}, "who may approve is read there"
    assert "AWS_SECRET_ACCESS_KEY" in keys["exec-version-forget-set"], "control: the store's keys go where it is written"
    plain = {e["name"] for c in containers(spec).values() for e in c["env"]}
    assert not any(re.search("SECRET|TOKEN|PASSWORD", variable) for variable in plain)


def test_component_readmes_are_generated_from_their_code():
    for row in STEPS:
        assert (catalogue.HERE / row.name / "README.md").read_text() == catalogue.readme(row)


@pytest.mark.parametrize("name", FILES)
def test_the_backend_keeps_the_report_numbers_and_what_a_model_is_and_nothing_else(name):
    """The report holds digests, counts and samples of retained classes. Forget images must never become artifacts: those outlive their runs."""
    spec, _, _ = compiled_tasks(name)
    artifacts = {
        (name, artifact): kind["artifactType"]["schemaTitle"]
        for name, component in spec["components"].items()
        for artifact, kind in component.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    reports = {where for where, kind in artifacts.items() if kind == "system.HTML"}
    models = {where for where, kind in artifacts.items() if kind == "system.Model"}
    assert reports == {("comp-record-outcome", "report")}
    assert models == {(f"comp-{step}", "model") for step in ("train-base", "erase", "register")}
    assert {where for where, kind in artifacts.items() if kind == "system.Metrics"} == set(artifacts) - reports - models
