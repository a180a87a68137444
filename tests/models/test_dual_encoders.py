"""CLIP and SigLIP: zero-shot as the stock model, and the image tower adapted as any encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_text import tiny_tokenizer
from torch.nn.functional import normalize

import fedcert
from fedcert.adapters import AdapterSpace, Task, write_peft_adapter
from fedcert.data import Examples, ImageInputs, input_spec_from_config
from fedcert.errors import DataError, ModelError
from fedcert.models import BaseModel, load_base_model, with_label_names, with_task_head
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from fedcert.search.learning import tuned_head
from models.tiny_encoders import WORDS

LABELS, TEMPLATES = ("good1", "bad1", "bad_2"), ("about {label}", "good7 {label}")
IMAGES = ImageInputs(3, 8, 8, 0.0, 16.0)
pytestmark = pytest.mark.filterwarnings("ignore:the labels")

_SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_TEXT: dict[str, Any] = {
    "vocab_size": 29,
    "max_position_embeddings": 8,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
_IMAGE: dict[str, Any] = {"image_size": 8, "patch_size": 4}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_towers(tmp_path_factory.mktemp("towers") / request.param)


def save_towers(folder: Path) -> Path:
    """Save a tiny model of two towers, of the family that the folder is named after."""
    import transformers as t

    text, image = {**_SIZE, **_TEXT}, {**_SIZE, **_IMAGE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if folder.name == "clip":
            both = {"projection_dim": 8}
            config = t.CLIPConfig(text_config=text | both, vision_config=image | both, **both)
            model: Any = t.CLIPModel(config)
        else:
            model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=image))
        for parameter in model.parameters():  # or a tiny model is blind to its inputs
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer(words=WORDS)
    tokenizer.model_max_length = 8
    from tokenizers.processors import TemplateProcessing

    # CLIP's embedding stands at the end token.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 3)]
    )
    tokenizer.save_pretrained(folder)
    return folder


def _base(source: Path, folder: Path) -> BaseModel:
    made = with_label_names(source, folder, template=TEMPLATES)
    return load_base_model(str(made)).with_labels(LABELS)


def _images(count: int) -> Examples:
    generator = keyed_generator("towers", count)
    images = IMAGES.normalize(generator.uniform(0, 16, (count, 3, 8, 8)))
    return Examples(images, generator.integers(0, 3, count))


def _stock_logits(source: Path, images: np.ndarray) -> torch.Tensor:
    """Zero-shot as CLIP's authors do it: templates embedded, averaged, normalized again."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    padded = {"padding": "max_length", "max_length": 8} if "siglip" in source.name else {}
    pixels, labels, inner = IMAGES.encode(images)["pixel_values"], [], None
    with torch.no_grad():
        for name in LABELS:
            texts = [each.format(label=name.replace("_", " ")) for each in TEMPLATES]
            words = tokenizer(texts, return_tensors="pt", **padded)
            inner = model(input_ids=words["input_ids"], pixel_values=pixels)
            labels.append(normalize(inner.text_embeds.mean(dim=0), dim=-1))
    return model.logit_scale.exp() * inner.image_embeds @ torch.stack(labels).T


def test_zero_shot_logits_are_those_of_the_stock_model(source: Path, tmp_path: Path) -> None:
    base = _base(source, tmp_path / "b")
    images = _images(5).inputs
    with torch.no_grad():
        logits = base.model(**IMAGES.encode(images)).logits
    torch.testing.assert_close(logits, _stock_logits(source, images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("last_layers", [1, 2])
def test_the_image_tower_is_adapted_as_peft_does(
    source: Path, last_layers: int, tmp_path: Path
) -> None:
    base, examples = _base(source, tmp_path / "b"), _images(7)
    space = AdapterSpace.of(base, rank=3, last_layers=last_layers)
    vectors = keyed_generator("towers").standard_normal((4, space.dimension))
    model = Task(base, space, IMAGES).model()
    ours = BatchedScorer(model, margin_tolerance=1e-5).score(vectors, examples)
    stock = ReferenceScorer(Task(base, space, IMAGES), margin_tolerance=1e-5)
    np.testing.assert_allclose(ours.losses, stock.score(vectors, examples).losses, atol=1e-4)
    assert model.note == ""
    assert model.top_only == (last_layers == 1 and "siglip" not in source.name)
    folder = tmp_path / "a"
    write_peft_adapter(
        space, vectors[0], folder, base_name=base.name, base=base, inputs=IMAGES.to_config()
    )
    wrong = exported_wrong(Task(base, space, IMAGES), folder, examples, margin_tolerance=1e-5)
    np.testing.assert_array_equal(wrong, ours.wrong[0])
    predicted = fedcert.load_classifier(folder, tmp_path / "b").predict(examples.inputs)
    true = [LABELS[label] for label in examples.labels]
    np.testing.assert_array_equal(np.array(true) == np.array(predicted), ~wrong)


def test_labels_move_where_images_show_where(source: Path, tmp_path: Path) -> None:
    base, examples = _base(source, tmp_path / "b"), _images(12)
    space = AdapterSpace.of(base, rank=3)
    task, center = Task(base, space, IMAGES), np.zeros(space.dimension)
    scorer = BatchedScorer(task.model(), margin_tolerance=1e-5)
    vector = tuned_head(scorer, examples, center)
    losses = [scorer.score(v[None], examples).losses.mean() for v in (center, vector)]
    assert losses[1] < losses[0]
    folder = tmp_path / "a"
    write_peft_adapter(
        space, vector, folder, base_name=base.name, base=base, inputs=IMAGES.to_config()
    )
    wrong = exported_wrong(task, folder, examples, margin_tolerance=1e-5)
    np.testing.assert_array_equal(wrong, scorer.score(vector[None], examples).wrong[0])


def test_the_export_loads_on_the_stock_image_tower(source: Path, tmp_path: Path) -> None:
    import transformers as t

    base = _base(source, tmp_path / "b")
    space = AdapterSpace.of(base, rank=3)
    vector = keyed_generator("stock").standard_normal(space.dimension)
    write_peft_adapter(space, vector, tmp_path / "a", base_name=base.name, base=base)
    clip = "siglip" not in source.name
    kind = t.CLIPVisionModelWithProjection if clip else t.SiglipVisionModel
    pixels = IMAGES.encode(_images(4).inputs)
    stock = PeftModel.from_pretrained(kind.from_pretrained(source), str(tmp_path / "a")).eval()
    with torch.no_grad():
        outputs = stock(**pixels)
    made = outputs.image_embeds if clip else outputs.pooler_output
    head = load_file(tmp_path / "a" / "head.safetensors")
    scale = base.model.task_head.scale * head["log_scale"].exp()
    wanted = scale * normalize(made, dim=-1) @ head["label_embeddings"].T
    model = Task(base, space, IMAGES).model()
    row = torch.from_numpy(vector).float()[None]
    ours = model.logits(model.prepare(pixels), row)[0]
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


def test_the_digest_covers_the_text_tower(source: Path, tmp_path: Path) -> None:
    base = load_base_model(str(with_label_names(source, tmp_path / "b")))
    assert base.with_labels(LABELS).digest == base.digest
    file = tmp_path / "b" / "text_tower" / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "q_proj.weight" in key)
    save_file(tensors | {name: tensors[name] + 0.1}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has other weights or another configuration"):
        load_base_model(str(tmp_path / "b"), digest=base.digest)


def test_a_missing_text_tower_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    with_label_names(source, tmp_path / "b")
    file = tmp_path / "b" / "text_tower" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="the text tower is damaged"):
        load_base_model(str(tmp_path / "b"))
    shutil.rmtree(tmp_path / "b" / "text_tower")
    with pytest.raises(ModelError, match="has no text tower"):
        load_base_model(str(tmp_path / "b"))
    half = tmp_path / "half"
    shutil.copytree(source, half)
    tensors = load_file(half / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if not key.startswith("text_model")}
    save_file(kept, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has no weights for its text tower"):
        with_label_names(half, tmp_path / "c")


def test_descriptions_that_do_not_fit_are_refused(source: Path, tmp_path: Path) -> None:
    base = load_base_model(str(with_label_names(source, tmp_path / "b")))
    long = {"good1": " ".join(["bad1"] * 9)}
    with pytest.raises(DataError, match="takes 10 tokens, but the base model takes 8"):
        base.with_labels(LABELS, descriptions=long)


def test_a_trained_head_reads_the_image_towers_own_embedding(
    source: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = with_task_head(source, ("no", "yes"), tmp_path / "b")
    base = load_base_model(str(folder), num_labels=2)
    assert base.label_names == ("no", "yes")
    pixels = IMAGES.encode(_images(3).inputs)
    with torch.no_grad():
        base.model.task_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        found = base.model(**pixels).logits
        made = AutoModel.from_pretrained(source).get_image_features(**pixels)
        made = getattr(made, "pooler_output", made)
        expected = 8 * normalize(made, dim=-1) @ base.model.task_head.weight.T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    space = AdapterSpace.of(base, rank=2)
    vector = keyed_generator("dual").standard_normal(space.dimension)
    task, few = Task(base, space, IMAGES), Examples(_images(5).inputs, np.arange(5) % 2)
    many = BatchedScorer(task.model(), margin_tolerance=1e-5).score(vector[None], few)
    plain = ReferenceScorer(task, margin_tolerance=1e-5).score(vector[None], few)
    np.testing.assert_allclose(many.losses, plain.losses, atol=1e-4)


CLIP = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@pytest.mark.parametrize("head", ["names", "trained"])
def test_pixels_are_normalized_as_the_folder_says(
    source: Path, head: str, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    shutil.copytree(source, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP))
    made = (
        with_label_names(folder, tmp_path / "b")
        if head == "names"
        else with_task_head(folder, ("no", "yes"), tmp_path / "b")
    )
    size = {"channels": 3, "height": 8, "width": 8}
    spec = ImageInputs.of(str(made), **size)
    assert spec == ImageInputs.of(str(folder), **size)
    assert input_spec_from_config(json.loads(json.dumps(spec.to_config()))) == spec
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    processor = transformers.CLIPImageProcessor(
        **CLIP, do_resize=False, do_center_crop=False, do_convert_rgb=False
    )
    stock = processor(list(pixels), input_data_format="channels_first", return_tensors="pt")
    found = spec.bound_to(load_base_model(str(made))).encode(spec.normalize(pixels))
    torch.testing.assert_close(found["pixel_values"], stock["pixel_values"], atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match=r"3 x 16 x 8 .* do not fit .* takes 3 x 8 x 8;"):
        ImageInputs(3, 16, 8, 0, 255).bound_to(load_base_model(str(made)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rescale_factor": 1 / 127.5}, "does not rescale pixels from"),
        ({"do_rescale": False}, "does not rescale pixels from"),
        ({"image_mean": [0.5]}, "is for 1 channels, and the images have 3"),
        ({"image_std": [0.5, 0.5, 0.0]}, "has no usable image_std"),
        ({"image_std": None}, "has no usable image_std"),
    ],
)
def test_an_image_processor_that_does_something_else_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP | changes))
    with pytest.raises(ModelError, match=said):
        ImageInputs.of(str(tmp_path), channels=3, height=8, width=8)


def test_without_an_image_processor_pixels_lie_between_minus_one_and_one(
    tmp_path: Path,
) -> None:
    plain = ImageInputs(3, 8, 8, 0.0, 255.0)
    assert ImageInputs.of(str(tmp_path), channels=3, height=8, width=8) == plain
    assert ImageInputs.of("", channels=3, height=8, width=8) == plain
    half = CLIP | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(half))
    assert ImageInputs.of(str(tmp_path), channels=3, height=8, width=8) == plain
    assert set(plain.to_config()) == {"kind", "channels", "height", "width", "low", "high"}
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        ImageInputs.of(str(tmp_path), channels=3, height=8, width=8)
