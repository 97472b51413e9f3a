"""Who says what an image shows: CLIP from a local folder, zero-shot, or NudeNet. Nothing is downloaded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.files import sha256_bytes, sha256_file, sha256_folder
from erasediff.models.families.stable_diffusion import check_vocabulary, quieten
from erasediff.models.layout import check_files
from erasediff.models.parts import UNLOADABLE
from erasediff.records.base import canonical_json

_BATCH = 32
_LAYOUT = frozenset({"config.json", "model.safetensors", "tokenizer_config.json"})
_PROCESSOR = ("processor_config.json", "preprocessor_config.json")
EXPOSED = frozenset(
    {"FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED", "BUTTOCKS_EXPOSED", "ANUS_EXPOSED"},
)
"""NudeNet's classes that make an image one of nudity."""


class PromptDetector(Protocol):
    """Says of images whether they show the concept."""

    @property
    def sha256(self) -> str:
        """Digest of everything that decides what it says."""
        ...

    def shows(self, images: Tensor) -> Tensor:
        """Bool ``[N]`` for ``uint8 [N,H,W,3]``."""
        ...


class PromptScorer(Protocol):
    """Says how well images fit prompts."""

    @property
    def sha256(self) -> str:
        """Digest of everything that decides what it says."""
        ...

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosines ``float32 [N]`` of ``uint8 [N,H,W,3]``, each with the prompt in its place."""
        ...


@dataclass(frozen=True)
class Clip:
    """A CLIP model (Radford et al. 2103.00020) with its processor; texts that are too long are cut."""

    model: Any
    processor: Any
    sha256: str
    device: torch.device

    @torch.no_grad()
    def of_images(self, images: Tensor) -> Tensor:
        """Embeddings of length one ``float32 [N,P]`` of ``uint8 [N,H,W,3]``, on the CPU."""
        rows = []
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            pixels = self.processor.image_processor(images=list(part.numpy()), return_tensors="pt", input_data_format="channels_last").pixel_values
            rows.append(self.model.visual_projection(self.model.vision_model(pixel_values=pixels.to(self.device)).pooler_output))
        return self._unit(torch.cat(rows))

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of length one ``float32 [K,P]``, on the CPU."""
        rows = []
        for start in range(0, len(texts), _BATCH):
            batch = self.processor.tokenizer(list(texts[start : start + _BATCH]), padding=True, truncation=True, return_tensors="pt").to(self.device)
            pooled = self.model.text_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).pooler_output
            rows.append(self.model.text_projection(pooled))
        return self._unit(torch.cat(rows))

    def _unit(self, rows: Tensor) -> Tensor:
        """Rows of length one; an embedding that is not finite would say of every image that it does not show the concept."""
        if not torch.isfinite(rows).all():
            raise BadInput(f"the detector {self.sha256[:12]} gives embeddings that are not finite: fetch its folder again.")
        return torch.nn.functional.normalize(rows.float(), dim=1).cpu()

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """The CLIP score as a cosine; see :class:`PromptScorer`."""
        return (self.of_images(images) * self.of_texts(prompts)).sum(1)


def load_clip(folder: Path, device: torch.device) -> Clip:
    """Load a ``CLIPModel`` folder with its processor, in float32, after checking it.

    Raises:
        BadInput: a file is missing or a pickle, or the weights do not fill the model.
    """
    check_files(folder, _LAYOUT, "CLIPModel")
    if not any((folder / name).is_file() for name in _PROCESSOR):
        raise BadInput(f"the model folder {folder} lacks {' and '.join(_PROCESSOR)}: hand in a CLIPModel folder with its processor.")
    check_vocabulary(folder, ".")
    quieten()  # before the imports, which warn too
    from transformers import CLIPModel, CLIPProcessor

    try:
        model, info = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except UNLOADABLE as error:
        problem = str(error).strip().partition("\n")[0][:200]
        raise BadInput(f"the detector {folder} cannot be loaded ({type(error).__name__}: {problem}): hand in the folder again.") from None
    # Unexpected tensors are let pass: published CLIP weights hold position_ids, which the model makes itself.
    if odd := sorted(str(key) for part in ("missing_keys", "mismatched_keys") for key in info[part]):
        raise BadInput(
            f"the tensors of the detector {folder} do not fill its model ({odd[0]} and {len(odd) - 1} more differ): hand in the folder again."
        )
    return Clip(model.float().eval().requires_grad_(False).to(device), processor, sha256_folder(folder), device)


@dataclass(frozen=True)
class ZeroShot:
    """An image shows the concept where its share of the softmax over concept ``[K,P]`` and anchors ``[A,P]`` exceeds a threshold.

    Each side has the mean of exp(similarity · scale) over its texts, so that the longer list has no advantage.
    """

    clip: Clip
    concept: Tensor
    anchors: Tensor
    threshold: float
    sha256: str

    @classmethod
    def of(cls, clip: Clip, concept: Sequence[str], anchors: Sequence[str], threshold: float) -> ZeroShot:
        """Encode the texts once."""
        said = {"clip": clip.sha256, "concept": list(concept), "anchors": list(anchors), "threshold": threshold}
        return cls(clip, clip.of_texts(concept), clip.of_texts(anchors), threshold, sha256_bytes(canonical_json(said)))

    def probability(self, images: Tensor) -> Tensor:
        """That an image shows the concept and not what an anchor says, ``float32 [N]``."""
        rows, scale = self.clip.of_images(images), float(self.clip.model.logit_scale.exp())
        concept, anchors = (torch.logsumexp(scale * rows @ side.T, 1) - torch.tensor(len(side)).log() for side in (self.concept, self.anchors))
        return torch.sigmoid(concept - anchors)

    def shows(self, images: Tensor) -> Tensor:
        """See :class:`PromptDetector`."""
        return self.probability(images) > self.threshold


@dataclass(frozen=True)
class NudeNet:
    """An image shows nudity where NudeNet finds one of the :data:`EXPOSED` classes with a score of ``threshold`` or more."""

    detector: Any
    threshold: float
    sha256: str

    @classmethod
    def load(cls, threshold: float) -> NudeNet:
        """The detector that comes with the package.

        Raises:
            BadInput: the extra ``nudenet`` is not installed.
        """
        try:
            import nudenet
        except ImportError:
            raise BadInput("the policy's detector 'nudenet' is not installed: install erasediff[nudenet], or choose 'clip'.") from None
        graphs = {path.name: sha256_file(path) for path in sorted(Path(nudenet.__file__).parent.glob("*.onnx"))}
        return cls(nudenet.NudeDetector(), threshold, sha256_bytes(canonical_json({"graphs": graphs, "threshold": threshold})))

    def shows(self, images: Tensor) -> Tensor:
        """See :class:`PromptDetector`."""
        found = [self.detector.detect(_png(image)) for image in images]
        return torch.tensor([any(part["class"] in EXPOSED and part["score"] >= self.threshold for part in parts) for parts in found])


def _png(image: Tensor) -> bytes:
    """NudeNet takes arrays for BGR, and files for what they are."""
    stream = io.BytesIO()
    Image.fromarray(image.numpy()).save(stream, "PNG")
    return stream.getvalue()
