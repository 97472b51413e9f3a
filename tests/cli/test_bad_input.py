"""Every mistake ends non-zero with one sentence that names the thing and the mend, and no traceback."""

import json
import os
import pickle
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from erasediff.cli import main
from erasediff.cli.inputs import read_classes
from erasediff.errors import BadInput
from erasediff.models.families.unet import build_unet
from erasediff.models.folder import save_model
from erasediff.models.layout import WEIGHTS
from erasediff.records.config import DenoiserConfig
from erasediff.steps.table import STEPS
from tests.digits import DIGITS
from tests.pretrained import write
from tests.small_models import model_of

ROOT = Path(__file__).parent.parent.parent
POLICY = ROOT / "policies/class-conditional.yaml"


@pytest.fixture
def refused(capsys):
    """Run the command line; it must refuse with one sentence, which is returned."""

    def run(*arguments: object, code: int = 2) -> str:
        assert main([str(a) for a in arguments]) == code
        sentence = capsys.readouterr().err.strip()
        assert "Traceback" not in sentence
        assert sentence.count("\n") == 0, sentence
        assert sentence.startswith("erasediff")
        return sentence

    return run


@pytest.fixture
def images(tmp_path):
    """A small folder of images with labels, as a user hands one in."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,label"]
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'cat' if i % 2 else 'dog'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def model(tmp_path):
    config = DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4)
    unet = build_unet(config, channels=1, size=8, classes=10)
    record = save_model(model_of(unet), tmp_path / "models", "digits", DIGITS, ())
    return tmp_path / "models" / record.weights.uri


def check(images, tmp_path, label="cat"):
    return ("check-prerequisites", "--workdir", tmp_path / "work", "--forget-label", label)


def dataset_config(tmp_path, images, **changes):
    path = tmp_path / "config.yaml"
    document = {"dataset": {"name": "pets", "kind": "folder", "path": str(images)}, "model_name": "pets", **changes}
    path.write_text(yaml.safe_dump(document))
    return path


def test_unknown_class(refused, images, tmp_path):
    sentence = refused(*check(images, tmp_path, "bird"), "--config", dataset_config(tmp_path, images))
    assert "bird" in sentence
    assert "cat" in sentence


def test_forget_set_that_is_the_whole_dataset(refused, images, tmp_path):
    """A one-class dataset is refused before there is anything to erase from."""
    (images / "labels.csv").write_text("file,label\n" + "\n".join(f"{i}.png,cat" for i in range(12)))
    assert "pets" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images))


def test_missing_label(refused, images, tmp_path):
    (images / "labels.csv").write_text("\n".join((images / "labels.csv").read_text().splitlines()[:-1]))
    assert "11.png" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images))


def test_truncated_png(refused, images, tmp_path):
    path = images / "3.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert "3.png" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images))


def test_image_of_another_size(refused, images, tmp_path):
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(images / "5.png")
    assert "5.png" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images))


def test_the_same_folder_without_a_fault_is_accepted(images, tmp_path, capsys):
    """Control: the refusals above are about the fault, not about the folder."""
    arguments = [*check(images, tmp_path), "--config", dataset_config(tmp_path, images)]
    assert main([str(a) for a in arguments]) == 0
    assert "is open" in capsys.readouterr().out


def test_resize_reduces_a_folder_for_each_class_whatever_its_name(refused, tmp_path, capsys):
    """Pictures of several sizes are one dataset by ``--resize``; without it, and with a size that is none, they are refused."""
    folder = tmp_path / "zo\u00eb"
    for number, side in enumerate((8, 16, 24, 32)):
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), number, dtype=np.uint8)).save(folder / f"class {number % 2}/{number}.png")
    arguments = (*check(folder, tmp_path, "class\u00a01"), "--dataset", f"imagefolder:{folder}")
    assert "is 24x24 grey but image class 0/0.png is 8x8 grey" in refused(*arguments)
    assert "--resize is not valid: field 'size'" in refused(*arguments, "--resize", 4)
    assert "smaller than size 16" in refused(*arguments, "--resize", 16)
    assert main([str(a) for a in (*arguments, "--resize", 8)]) == 0
    assert "is open" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"alpha": 0.9}, "alpha"),
        ({"forget": {"n": 1000, "max_upper": 1.5, "max_reference": 0.01}}, "forget.max_upper"),
        ({"fidelity": {"max_relative_upper": 0.1, "resamples": 3}}, "fidelity.resamples"),
        ({"forget": {"n": 0, "max_upper": 0.02, "max_reference": 0.01}}, "forget.n"),
    ],
)
def test_policy_with_an_unknown_field_or_a_threshold_out_of_range(refused, tmp_path, change, named):
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(POLICY.read_text()) | change))
    assert named in refused("run", "--forget-label", 0, "--workdir", tmp_path / "work", "--policy", path)
    assert not (tmp_path / "work/outcome.json").exists()


def test_config_with_an_unknown_field(refused, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("erase: {stepps: 3}")
    assert "erase.stepps" in refused("run", "--forget-label", 0, "--workdir", tmp_path / "work", "--config", path)


def test_a_repeated_key_in_config_or_policy(refused, tmp_path):
    """The first one would be dropped without a word."""
    config, policy = tmp_path / "config.yaml", tmp_path / "policy.yaml"
    config.write_text("erase: {steps: 300}\nseed: 1\nerase: {method: finetune}\n")
    policy.write_text("tier: 2\n" + POLICY.read_text())
    arguments = ("run", "--forget-label", 0, "--workdir", tmp_path / "work")
    assert "config.yaml is not YAML 1.2 (the key 'erase' appears twice, line 3)" in refused(*arguments, "--config", config)
    assert "policy.yaml is not YAML 1.2 (the key 'tier' appears twice" in refused(*arguments, "--policy", policy)
    config.write_text("erase: {steps: 300}\nseed: 1\n")
    assert "appears twice" not in refused(*arguments, "--config", config, "--policy", tmp_path / "absent.yaml"), "control: it is the second key"


def test_config_that_is_not_there(refused, tmp_path):
    assert "nowhere.yaml" in refused("run", "--forget-label", 0, "--workdir", tmp_path / "work", "--config", tmp_path / "nowhere.yaml")


def sample(model, tmp_path, label=1):
    return ("sample", "--model", model, "--label", label, "--out", tmp_path / "out.png", "--workdir", tmp_path / "work")


def test_model_folder_samples(model, tmp_path):
    """Control: the folder is good until a test breaks it."""
    assert main([str(a) for a in sample(model, tmp_path)]) == 0
    assert (tmp_path / "out.png").is_file()


def test_pickle_where_safetensors_are_expected(refused, model, tmp_path):
    """The pickle would write a file if it were loaded."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    (model / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    assert "safetensors" in refused(*sample(model, tmp_path))
    (model / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "pickle" in refused(*sample(model, tmp_path))
    assert not trap.exists()
    assert not (tmp_path / "out.png").exists()


def test_tensor_names_that_do_not_match(refused, model, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / WEIGHTS)
    tensors["surprise.weight"] = torch.zeros(1)
    save_file(tensors, model / WEIGHTS)
    assert "surprise.weight" in refused(*sample(model, tmp_path))


def test_model_that_is_not_there(refused, tmp_path):
    assert "nowhere" in refused(*sample(tmp_path / "nowhere", tmp_path))


def test_label_that_the_model_does_not_have(refused, model, tmp_path):
    assert "give a position from 0 to 9" in refused(*sample(model, tmp_path, label=12))


def no_index(folder):
    (folder / "model_index.json").unlink()


def another_pipeline(folder):
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')


def a_list_as_its_kind(folder):
    (folder / "model_index.json").write_text('{"_class_name": ["DDPMPipeline"]}')


def in_another_file(folder):
    (folder / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize("change", [no_index, another_pipeline, a_list_as_its_kind, in_another_file])
def test_a_folder_in_a_layout_of_others_is_told_what_reads_it(refused, model, tmp_path, change):
    change(model)
    sentence = refused(*sample(model, tmp_path))
    assert "`erasediff import-base`" in sentence
    assert "erasediff.load" in sentence


def existing(tmp_path):
    (tmp_path / "out.png").write_bytes(b"kept")
    return tmp_path / "out.png"


def pipe(tmp_path):
    os.mkfifo(tmp_path / "out.png")
    return tmp_path / "out.png"


NO_PLACE = {
    "a folder": (lambda tmp_path: tmp_path, "is a folder: give {} the path of a file"),
    "this folder": (lambda _: ".", "is a folder: give {} the path of a file"),
    "in no folder": (lambda tmp_path: tmp_path / "missing/out.png", "missing does not exist: make it, or choose another {}"),
    "below a file": (lambda tmp_path: existing(tmp_path) / "out.png", "does not exist: make it, or choose another {}"),
    "a pipe": (pipe, "is no file: choose another {}"),
    "nowhere to write": (lambda _: "/proc/out.png", "cannot be written (No such file or directory): choose another {}"),
    "a long name": (lambda tmp_path: tmp_path / ("x" * 300), "cannot be written (File name too long): choose another {}"),
}


@pytest.mark.parametrize("place", NO_PLACE)
def test_a_picture_that_cannot_be_written_is_told_before_the_model_is_sampled(refused, tmp_path, place):
    """The model is not there, which is told only after. Control: with a good place it is told, and the file that is there is kept."""
    where, says = NO_PLACE[place]
    missing, out = tmp_path / "nowhere", where(tmp_path)
    commands = {
        "--sheet": ("import-base", missing, "--workdir", tmp_path / "work", "--sheet"),
        "--out": ("sample", "--model", missing, "--label", 1, "--workdir", tmp_path / "work", "--out"),
    }
    for option, command in commands.items():
        assert says.format(option) in refused(*command, out)
        good = tmp_path / "good.png"
        good.write_bytes(b"kept")
        assert "nowhere does not exist" in refused(*command, good), "control"
        assert good.read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_schedule_that_is_shorter_than_the_sampler_is_told(refused, model, tmp_path):
    """Control: the command gets as far as sampling; with enough timesteps it ends with C0, which takes longer."""
    scheduler = model / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"num_train_timesteps": 5}))
    sentence = refused("import-base", model, "--workdir", tmp_path / "work")
    assert "has 5 timesteps and is to be sampled in 10 steps: set sampler.steps (--steps) to 5 or less" in sentence
    assert "sampled in 25 steps" in refused(*sample(model, tmp_path), "--steps", 25)
    assert main([str(a) for a in (*sample(model, tmp_path), "--steps", 5)]) == 0, "control"


def test_the_help_of_import_base_says_what_it_takes(capsys):
    assert main(["import-base", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(kind in said for kind in ("UNet2DModel", "DiT", ".safetensors"))


@pytest.mark.parametrize("text", ["cat\ndog\n", "cat\ndog", "cat\ndog\n\n", "cat\r\ndog\r\n \r\n", "cat\rdog\r", "\ufeffcat\ndog\n\t\n\n"])
def test_a_list_of_classes_ends_as_editors_end_it(tmp_path, text):
    (tmp_path / "classes").write_bytes(text.encode())
    assert read_classes(tmp_path / "classes") == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"cat\n\ndog\n", "line 2 of the list of classes .* is blank"),
        (b"cat\ndog\n cat \n", "lines 1 and 3 of the list of classes .* name one class"),
        (b"cat\n", "names 1 classes: write at least 2"),
        (b"\n\n", "names 0 classes: write at least 2"),
        (b"cat\n\xff", "is not text in UTF-8"),
    ],
)
def test_a_list_that_is_none_is_told_by_its_line(tmp_path, text, says):
    (tmp_path / "classes").write_bytes(text)
    with pytest.raises(BadInput, match=says) as refused:
        read_classes(tmp_path / "classes")
    assert "field" not in str(refused.value)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_unreachable_mlflow(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{closed_port()}")
    sentence = refused("check-prerequisites", "--forget-label", 0, "--workdir", tmp_path / "work")
    assert "MLflow at http://127.0.0.1" in sentence
    assert "secret" not in sentence


def test_registered_model_that_is_not_there(refused, tmp_path):
    assert "models:/digits@champion" in refused(*sample("models:/digits@champion", tmp_path))


def test_workdir_that_cannot_be_written(refused):
    """/proc refuses every writer, root too."""
    assert "/proc/work" in refused("run", "--forget-label", 0, "--workdir", "/proc/work")


def test_workdir_that_is_a_file(refused, tmp_path):
    (tmp_path / "work").write_text("")
    assert "not a folder" in refused("run", "--forget-label", 0, "--workdir", tmp_path / "work")


def test_run_without_a_signing_key(refused, tmp_path, monkeypatch):
    """Found before anything is trained, though it is the exported model that is signed."""
    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY")
    assert "erasediff keys new" in refused("check-prerequisites", "--forget-label", 0, "--workdir", tmp_path / "work")
    assert not list((tmp_path / "work").glob("runs/*"))


def test_step_without_an_attempt(refused, tmp_path):
    for step in ("version-forget-set", "erase", "evaluate", "gate", "export-onnx", "register", "roll-out", "promote", "record-outcome"):
        assert "check-prerequisites" in refused(step, "--workdir", tmp_path / "work")


def test_model_of_features_that_is_not_there_or_is_a_pickle(refused, images, tmp_path):
    """Found when the attempt is opened and not after the erasure."""
    folder = tmp_path / "dinov2"
    config = {"features": {"kind": "transformers", "path": str(folder)}}
    assert "dinov2 does not exist" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))
    write(folder, "dinov2")
    (folder / "preprocessor_config.json").unlink()
    assert "lacks preprocessor_config.json" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "a pickle" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))
    (folder / "pytorch_model.bin").unlink()
    write(folder, "dinov2")
    assert main([str(a) for a in (*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))]) == 0, "control"


def test_features_of_inception_without_the_package(refused, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    config = {"features": {"kind": "inception", "path": str(tmp_path / "weights.pth")}}
    assert "erasediff[inception]" in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))


def test_classifier_from_a_folder_whose_labels_do_not_fit(refused, images, tmp_path):
    folder = write(tmp_path / "vit", "vit")
    for labels, named in (([1], "names 1 classes and the dataset has 2"), ([1, 12], "names class 12")):
        config = {"detector": {"kind": "transformers", "path": str(folder), "labels": labels}}
        assert named in refused(*check(images, tmp_path), "--config", dataset_config(tmp_path, images, **config))


@pytest.mark.parametrize(("command", "named"), [("run", "--forget-label"), ("check-prerequisites", "--forget-label"), ("rollback", "--name")])
def test_what_changes_what_serves_is_never_a_default(command, named, tmp_path, capsys):
    """A command that was typed half erases nothing and rolls nothing back."""
    assert main([command, "--workdir", str(tmp_path / "work")]) == 2
    assert f"Missing option '{named}'" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_unknown_option_is_usage(tmp_path, capsys):
    assert main(["run", "--surprise"]) == 2
    assert "--surprise" in capsys.readouterr().err


def test_anything_unexpected_is_one_sentence_and_a_log(tmp_path, capsys, monkeypatch):
    """A fault planted in the dataset reader stands for a bug: exit 1, one sentence, the traceback in a file."""
    import erasediff.data.datasets as datasets

    def bug(_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(datasets, "load_dataset", bug)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["run", "--forget-label", "0", "--workdir", str(tmp_path / "work")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    log = Path(error.split("traceback is in ")[1].rstrip("."))
    assert "planted" in log.read_text()
    log.unlink()


def test_help_lists_every_promised_subcommand(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in ("demo", "run", "process", "request", "due", "status", "verify", "serve", "sample", *(row.command for row in STEPS)):
        assert f"  {name} " in listed


def test_tier_2_needs_to_know_how_a_base_is_trained(refused, tmp_path):
    """It compares with a model that is trained without the class; found out before hours of erasing, not after."""
    config = tmp_path / "config.yaml"
    config.write_text("base_training: null")
    arguments = ("check-prerequisites", "--forget-label", 0, "--workdir", tmp_path / "work", "--config", config, "--tier")
    assert "set attacks.retrain to false" in refused(*arguments, 2)
    assert "attacks.retrain" not in refused(*arguments, 1), "control: it is another mistake on tier 1"


@pytest.mark.parametrize("looks", [[4, 2], [0, 2], [2, 2], []])
def test_looks_of_relearning_have_to_rise(refused, tmp_path, looks):
    policy = yaml.safe_load(POLICY.read_text())
    policy["attacks"]["relearning"]["looks"] = looks
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    assert "looks" in refused("check-prerequisites", "--forget-label", 0, "--workdir", tmp_path / "work", "--policy", tmp_path / "policy.yaml")
