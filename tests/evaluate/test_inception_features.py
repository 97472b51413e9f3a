"""The lie: 'Inception features', from weights that were fetched from somewhere or a file that ran code."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.evaluate.features.inception import load_inception, read_weights
from erasediff.files import sha256_file

PACKAGE = "torch_fidelity.feature_extractor_inceptionv3"


class StandIn(nn.Module):
    """The constructor of torch-fidelity 0.4 as it is: it downloads without a path, and unpickles the path it is given."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None) -> None:
        super().__init__()
        assert feature_extractor_weights_path is not None, "it would download"
        self.mix = nn.Linear(3, 2048)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (self.mix(images.float().mean((2, 3))),)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the package, whether or not it is installed."""
    module = ModuleType(PACKAGE)
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, PACKAGE, module)


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"mix.weight": torch.randn(2048, 3, generator=generator), "mix.bias": torch.randn(2048, generator=generator)}


def images(channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (5, 9, 9, channels), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_file_s_weights_are_those_that_look(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(weights(), path) if suffix == ".safetensors" else torch.save(weights(), path)
    extractor = load_inception(path, 2)
    assert extractor.digest == sha256_file(path)
    for given in (images(), images(1)):
        means = given.double().mean((1, 2)).expand(-1, 3)
        wanted = means @ weights()["mix.weight"].double().T + weights()["mix.bias"].double()
        assert extractor.features(given) == pytest.approx(wanted.numpy(), rel=1e-4, abs=1e-2)
    assert extractor.features(images()).dtype == np.float64


def test_without_the_package_one_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(BadInput, match=r"^[^\n]*pip install 'erasediff\[inception\]'[^\n]*\.$"):
        load_inception(tmp_path / "weights.pth", 2)


@pytest.mark.usefixtures("stand_in")
def test_a_pickle_that_is_more_than_tensors_is_refused_and_never_run(tmp_path: Path) -> None:
    """torch-fidelity itself would run it."""
    trap, path = tmp_path / "sprung", tmp_path / "weights.pth"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    torch.save({"mix.weight": Trap()}, path)
    with pytest.raises(BadInput, match="read safely"):
        load_inception(path, 2)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadInput, match="read safely"):
        load_inception(path, 2)
    assert not trap.exists()
    torch.save({"mix.weight": Trap()}, path)
    with pytest.raises(RuntimeError, match="Missing key"):
        StandIn("", [], str(path))
    assert trap.exists(), "control: the trap works"


@pytest.mark.usefixtures("stand_in")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"mix.weight": torch.zeros(2048, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match="are not those of torch-fidelity's Inception-v3"):
        load_inception(tmp_path / "w.safetensors", 2)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}])
def test_what_holds_no_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="does not hold named tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", bytes(100)])
def test_damaged_or_missing_files_end_with_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(BadInput, match=r"do not exist: check features\.path"):
        read_weights(tmp_path / name)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=r"^[^\n]*(read safely|does not hold)[^\n]*\.$"):
        read_weights(tmp_path / name)
