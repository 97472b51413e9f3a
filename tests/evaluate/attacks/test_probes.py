"""The lie: 'it was asked in every way', by probes that ask for something else than they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from erasediff.errors import BadInput
from erasediff.evaluate.attacks import PROBES, Suspect, null_label_probe, probe_named
from erasediff.evaluate.attacks.embeddings import with_conditions
from erasediff.evaluate.attacks.probe import Probe
from erasediff.evaluate.sampling import draw_samples
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.records.config import SamplerConfig
from erasediff.records.policy import GatePolicy, load_policy
from tests.small_models import model_of

LABEL, NULL = 3, 10
SEEDS = list(range(6))
CPU = torch.device("cpu")
Maker = Callable[..., ClassConditionalUNet]


@pytest.fixture
def pipeline(tiny_unet) -> Maker:
    return lambda seed=0: model_of(tiny_unet(seed))


@pytest.fixture
def suspect(pipeline: Maker) -> Suspect:
    return Suspect(pipeline(), pipeline(1), LABEL, tuple(c for c in range(10) if c != LABEL), SamplerConfig(steps=4, workers=1), CPU, seed=0)


def drawn(probe: Probe) -> torch.Tensor:
    labels = probe.conditions[torch.arange(len(SEEDS)) % len(probe.conditions)]
    return draw_samples(probe.source, labels, SEEDS, probe.sampler.model_copy(update={"steps": 4}), "test")


def test_the_policy_s_names_are_those_of_the_attacks(suspect: Suspect) -> None:
    """And each asks for something of its own: no two give the same images, nor those of the label by the sampler that serves."""
    names = load_policy(Path(__file__).parents[3] / "policies/class-conditional.yaml").probes.ask
    assert set(PROBES) - {"eta 1.85"} < set(names), "at so much noise the base makes no class either: there if a policy asks for it"
    images = [drawn(probe_named(suspect, name)) for name in {*names, *PROBES}] + [drawn(null_label_probe(suspect)), drawn(suspect.probe("label"))]
    assert all(not torch.equal(a, b) for k, a in enumerate(images) for b in images[:k])


@pytest.mark.parametrize("name", ["guidance", "guidance x", "DDIM 50", ""])
def test_a_name_that_is_not_known_is_refused(suspect: Suspect, name: str) -> None:
    with pytest.raises(BadInput, match="choose from"):
        probe_named(suspect, name)
    policy = load_policy(Path(__file__).parents[3] / "policies/class-conditional.yaml").model_dump(mode="json")
    policy["probes"]["ask"] = [name]
    with pytest.raises(BadInput, match=r"probes\.ask"):
        GatePolicy.parse(policy, "the policy")


def test_unasked_is_the_null_label(suspect: Suspect) -> None:
    assert torch.equal(drawn(null_label_probe(suspect)), drawn(suspect.probe("null", NULL)))


def test_guidance_zero_is_the_null_label_and_one_the_label(suspect: Suspect) -> None:
    assert (drawn(probe_named(suspect, "guidance 0")).int() - drawn(null_label_probe(suspect)).int()).abs().max() <= 1
    assert torch.equal(drawn(probe_named(suspect, "guidance 1")), drawn(suspect.probe("label")))


@pytest.mark.parametrize("name", ["DDIM", "ancestral", "eta 1.85", "variance 1.04"])
def test_an_image_of_any_sampler_depends_on_its_own_seed_alone(suspect: Suspect, name: str) -> None:
    """Ancestral noise is drawn for each image apart, at every step."""
    probe = probe_named(suspect, name)
    one_by_one = torch.cat(
        [draw_samples(probe.source, probe.conditions, [seed], probe.sampler.model_copy(update={"steps": 4}), "t") for seed in SEEDS]
    )
    assert (one_by_one.int() - drawn(probe).int()).abs().max() <= 1


def test_ancestral_noise_is_that_of_its_eta(suspect: Suspect) -> None:
    """At η = 0 it is DDIM bit for bit; control: at 1 it is not."""
    ancestral = probe_named(suspect, "ancestral")
    assert torch.equal(drawn(ancestral.by(eta=0.0)), drawn(probe_named(suspect, "DDIM")))
    assert not torch.equal(drawn(ancestral), drawn(probe_named(suspect, "DDIM")))


def test_new_conditions_stand_beside_the_old_ones(suspect: Suspect) -> None:
    """A copy of a row asks for what the row asks for; the model itself is not changed."""
    table = suspect.model.rows().clone()
    model, (again, other) = with_conditions(suspect.model, table[[LABEL, 5]])
    assert torch.equal(suspect.model.rows(), table)
    assert (again, other, model.conditions) == (11, 12, NULL)
    asked = {condition: drawn(suspect.probe("new", condition, model=model)) for condition in (again, other, LABEL, 5)}
    assert torch.equal(asked[again], asked[LABEL])
    assert torch.equal(asked[other], asked[5])
    assert not torch.equal(asked[again], asked[other]), "control"
    assert torch.equal(asked[LABEL], drawn(suspect.probe("label")))


def test_the_base_s_embedding_undoes_an_erasure_that_moved_the_embedding_alone(suspect: Suspect, pipeline: Maker) -> None:
    """The base with the label's row replaced: its own label asks for another class, the probe for the old one."""
    base, hidden = pipeline(), pipeline()
    with torch.no_grad():
        hidden.network.class_embedding.weight[LABEL] = hidden.network.class_embedding.weight[5]
    honest = replace(suspect, model=base, base=base)
    hiding = replace(suspect, model=hidden, base=base)
    assert torch.equal(drawn(hiding.probe("label")), drawn(honest.probe("five", 5)))
    assert torch.equal(drawn(probe_named(hiding, "base embedding")), drawn(honest.probe("label")))


def test_noisy_and_mixed_embeddings_are_near_the_label_s(suspect: Suspect) -> None:
    """25 draws of half the spread, and the midpoint with each retained label."""
    table = suspect.model.rows()
    noisy, mixed = (
        probe_named(suspect, name).source.denoiser.unet.class_embedding.weight.detach() for name in ("noisy embedding", "mixed embedding")
    )
    assert (noisy[11:] - table[LABEL]).std() == pytest.approx(0.5 * float(table.std(0).mean()), rel=0.1)
    assert torch.allclose(mixed[11:], (table[LABEL] + table[[c for c in range(10) if c != LABEL]]) / 2)
    assert (len(noisy), len(mixed)) == (11 + 25, 11 + 9)
