"""What is in the images, and what they may do: no root, no compiler, nothing unlocked, nothing of the machine that built them."""

import json
import re
import shutil
import subprocess

import pytest

from components.images import PIPELINE_CPU, SERVE, TRAIN_GPU
from tests.exported import export_random
from tests.images.building import NAMES, ROOT, docker, run
from tests.images.conftest import HOW
from tests.issuer import issuer_public

TOOLS = ROOT / "build/image-tools/bin"
LOCKED_DOWN = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
INSTALLED = "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
ROLES = sorted(NAMES)


def inside(image, *command, options=()):
    return docker("run", "--rm", *LOCKED_DOWN, *options, "--entrypoint", command[0], image, *command[1:])


def python(image, code):
    return inside(image, "python3", "-c", code)


def by_name(versions):
    """Projects under the one spelling of their names."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}


def installed(image):
    return by_name(json.loads(python(image, INSTALLED)))


def locked(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    return by_name(dict(line.split("==") for line in lines))


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_as_nobody_in_particular_and_cannot_write_to_itself(images, role):
    (found,) = json.loads(docker("inspect", images[role]))
    assert re.fullmatch(r"[1-9]\d*:\d+", found["Config"]["User"]), "a name cannot be checked against runAsNonRoot"
    assert inside(images[role], "id", "-u") == found["Config"]["User"].partition(":")[0]
    own = docker("run", "--rm", "--network", "none", "--entrypoint", "find", images[role], "/opt/erasediff", "-writable", "-not", "-type", "l")
    assert own == "", "even where the root file system is not mounted read-only"


def test_the_serving_image_holds_no_training_code(images):
    """Its dependencies are its attack surface; torch alone is larger than all of it."""
    code = "import importlib.util as u; print(*(n for n in ('torch', 'diffusers', 'mlflow', 'kfp', 'dvc', 'sklearn') if u.find_spec(n)))"
    assert python(images["serve"], code) == ""
    assert python(images["pipeline"], code).split() == ["torch", "diffusers", "mlflow", "kfp", "dvc", "sklearn"]  # control


def test_the_serving_code_imports_without_torch(images):
    assert python(images["serve"], "import erasediff.serve.server, erasediff.serve.app, erasediff.cli; print('imported')") == "imported"
    assert docker("run", "--rm", *LOCKED_DOWN, images["serve"], "--version") == f"erasediff {SERVE.rpartition(':')[2]}"


ASK = """
import json, sys, time, urllib.request
def get(path, body=None):
    return json.load(urllib.request.urlopen("http://127.0.0.1:8080" + path, body, timeout=30))
for attempt in range(120):
    try:
        get("/v2/health/ready")
        break
    except OSError:
        time.sleep(0.5)
body = {"inputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["3"]}]}
print(get("/served")["onnx_sha256"], get("/v2/models/erasediff/infer", json.dumps(body).encode())["outputs"][0]["shape"])
"""


def test_the_serving_image_serves_with_nothing_but_its_port(images, tiny_unet, tmp_path):
    """Read-only, without capabilities and without a network: what asks is in the same container."""
    model = export_random(tmp_path / "models", tiny_unet, seed=1, epoch=1)
    (tmp_path / "rules.yaml").write_text("suppress: ['5']\n")
    (tmp_path / "issuer").mkdir()
    shutil.copy(issuer_public(), tmp_path / "issuer")
    tmp_path.chmod(0o755)  # the image's user is not this one
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    places = {"models": "/mnt/models", "rules.yaml": "/etc/erasediff/rules.yaml", "issuer": "/etc/erasediff-issuer"}
    mounts = [part for name, place in places.items() for part in ("--volume", f"{tmp_path}/{name}:{place}:ro")]
    container = docker("run", "--detach", *LOCKED_DOWN, *mounts, images["serve"])
    try:
        answer = docker("exec", container, "/opt/erasediff/bin/python", "-c", ASK)
        assert answer == f"{model.onnx.sha256} [1, 8, 8, 1]"
        docker("stop", "--time", "60", container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0", "SIGTERM drains"
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)


def test_the_serving_image_holds_its_lock_and_nothing_else(images):
    found = installed(images["serve"])
    assert found.pop("erasediff") == SERVE.rpartition(":")[2]
    assert found == locked("requirements-serve.lock")


@pytest.mark.parametrize("role", ["pipeline", "train"])
def test_the_pipelines_images_hold_locked_versions_and_no_tool_for_development(images, role):
    found, lock = installed(images[role]), locked("requirements.lock")
    del found["erasediff"]
    assert {name: version for name, version in found.items() if lock.get(name) != version.removesuffix("+cpu")} == {}
    assert not found.keys() & {"pytest", "moto", "mypy", "ruff", "hypothesis", "pre-commit"}
    assert {"torch", "kfp", "mlflow", "psycopg-binary"} <= found.keys()  # control: they were looked at


@pytest.mark.parametrize("role", ROLES)
def test_there_is_nothing_to_build_or_install_with(images, role):
    look = "for tool in gcc g++ cc ld make git curl wget; do command -v $tool; done; ls /opt/erasediff/bin | grep -x pip; true"
    assert inside(images[role], "sh", "-c", look) == ""


PRIVATE = re.compile(r"https?://|PIP_|SSL_CERT|CA_BUNDLE|AWS_|TOKEN|PASSWORD|SECRET|PROXY|-----BEGIN", re.IGNORECASE)


def of_the_machine(image):
    """What an image's history and environment say of the machine that built it."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    (found,) = json.loads(docker("inspect", image))
    return [line for line in [*history.splitlines(), *found["Config"]["Env"]] if PRIVATE.search(line)]


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_the_machine_that_built_it_is_in_an_image(images, role):
    assert of_the_machine(images[role]) == []
    code = "for name in /wheels /src /dist /build /etc/pip.conf /root/.config/pip /root/.cache; do test -e $name && echo $name; done; true"
    assert inside(images[role], "sh", "-c", code) == ""


def test_control_a_secret_in_the_history_is_found(images, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {images['serve']}\nENV MLFLOW_TRACKING_TOKEN=x\n")
    docker("build", "--quiet", "--tag", "erasediff-stand-in:leaky", tmp_path)
    assert len(of_the_machine("erasediff-stand-in:leaky")) == 2
    docker("rmi", "erasediff-stand-in:leaky")


@pytest.mark.parametrize("role", ROLES)
def test_an_image_says_what_it_is(images, role):
    (found,) = json.loads(docker("inspect", images[role]))
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in found["Config"]["Labels"].items()}
    assert labels.keys() == {"title", "description", "licenses", "version", "revision", "base.name"}
    assert f"ghcr.io/{labels['title']}:{labels['version']}" == NAMES[role]


def test_the_sizes_are_written_down(images):
    sizes = {role: json.loads(docker("inspect", name))[0]["Size"] for role, name in images.items()}
    (ROOT / "build/image-sizes.json").write_text(json.dumps(sizes, indent=2) + "\n")
    print("MB:", {role: size // 1_000_000 for role, size in sizes.items()})
    assert sizes["serve"] < 0.4 * sizes["pipeline"]


def tool(name):
    if not (TOOLS / name).is_file():
        pytest.skip(f"{name} is not installed: {HOW}.")
    return TOOLS / name


def test_a_bill_of_materials_names_what_is_served_from(images):
    folder = ROOT / "build/sbom"
    folder.mkdir(parents=True, exist_ok=True)
    run(tool("syft"), "scan", "--quiet", "--output", f"spdx-json={folder}/serve.spdx.json", f"docker:{images['serve']}")
    names = {package["name"].lower() for package in json.loads((folder / "serve.spdx.json").read_text())["packages"]}
    assert {"kserve", "onnxruntime", "numpy", "erasediff"} <= names
    assert "torch" not in names


def test_the_containerfiles_are_clean():
    run(tool("hadolint"), *sorted(ROOT.glob("images/*.Containerfile")))


def test_control_the_linter_finds_something(tmp_path):
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM debian:latest\nRUN apt-get install python3\n")
    assert subprocess.run([tool("hadolint"), bad], capture_output=True, check=False).returncode != 0


def test_make_builds_the_images_that_the_components_name():
    said = run("make", "--dry-run", "images")
    roles = re.search(r"for role in (.*?);", said)
    assert roles is not None
    version = re.search(r"VERSION=(\S+)", said)
    assert version is not None
    named = {part.partition("=")[2] + ":" + version.group(1) for part in roles.group(1).split()}
    assert named == {SERVE, PIPELINE_CPU, TRAIN_GPU}
    assert {part.partition("=")[0] for part in roles.group(1).split()} == {path.stem for path in ROOT.glob("images/*.Containerfile")}
