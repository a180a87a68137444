"""Labels as phrases of a causal language model: as a plain loop with PEFT counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from personalization.conftest import KEY
from tiny_text import BAD, GOOD, tiny_tokenizer

from fedcert.adapters import (
    AdapterSpace,
    FinetuneSettings,
    Task,
    finetune,
    write_peft_adapter,
)
from fedcert.bundles import Bundle
from fedcert.certificates import RecipeTable, UnionRecipe, verify_record
from fedcert.data import Examples, PromptInputs
from fedcert.errors import ModelError, SettingsError
from fedcert.models import BaseModel, LabelScorer, load_base_model, with_label_phrases
from fedcert.personalization import personalize
from fedcert.priors import GaussianPrior
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from fedcert.verification import check_adapter, check_bundle, check_data

LABELS = ("bad", "good")
TEMPLATE = "say : {text} so :"
WORDS = [*GOOD, *BAD, "say", "so", ":", "great", "terrible", "very", "quite"]
ONE, SEVERAL = ("terrible", "great"), ("very quite terrible", "great")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("lm")
    tokenizer = tiny_tokenizer(pad=False, words=WORDS)
    tokenizer.model_max_length = 32
    size = {"hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **size, **heads)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _base(source: Path, phrases: tuple[str, ...], **options: Any) -> BaseModel:
    folder = with_label_phrases(source, LABELS, phrases, **options)
    return load_base_model(str(folder), num_labels=2)


def _spec(base: BaseModel, *, max_length: int = 16, template: str = TEMPLATE) -> PromptInputs:
    return PromptInputs.of(base.name, max_length=max_length, template=template)


def _texts(count: int, *, seed: int = 0) -> Examples:
    generator = keyed_generator("label texts", seed)
    labels, texts = generator.integers(0, 2, count), np.empty(count, dtype=object)
    for row, label in enumerate(labels):
        words = generator.choice(GOOD if label else BAD, generator.integers(1, 7))
        texts[row] = " ".join(words)
    return Examples(texts, labels)


def _plain_loop(
    source: Path, adapter: Path, texts: list[str], phrases: tuple[str, ...], *, average: bool
) -> torch.Tensor:
    """What a user would write: the stock language model, PEFT, and one phrase at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    scores = torch.empty(len(texts), len(phrases))
    for row, text in enumerate(texts):
        prompt = tokenizer(TEMPLATE.replace("{text}", text))["input_ids"]
        for column, phrase in enumerate(phrases):
            ids = tokenizer(phrase, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            logs = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
            scores[row, column] = logs.mean() if average else logs.sum()
    return scores


@pytest.mark.parametrize(
    ("phrases", "average"), [(ONE, False), (SEVERAL, False), (SEVERAL, True)]
)
@pytest.mark.parametrize("last_layers", [1, 3])
def test_labels_are_scored_as_by_a_plain_loop(
    source: Path, tmp_path: Path, phrases: tuple[str, ...], average: bool, last_layers: int
) -> None:
    base = _base(source, phrases, average=average)
    space, spec, examples = (
        AdapterSpace.of(base, rank=3, last_layers=last_layers),
        _spec(base),
        _texts(12),
    )
    assert space.dimension == 2 * last_layers * 9  # no head
    vectors = keyed_generator("label vectors").standard_normal((3, space.dimension))
    model = Task(base, space, _spec(base)).model()
    ours = BatchedScorer(model, margin_tolerance=1e-5).score(vectors, examples)
    stock = ReferenceScorer(Task(base, space, spec), margin_tolerance=1e-5).score(
        vectors, examples
    )
    np.testing.assert_allclose(ours.losses, stock.losses, atol=1e-4)
    assert model.top_only == (phrases == ONE and last_layers == 1)
    labels = torch.from_numpy(examples.labels)
    for vector, losses, wrong in zip(vectors, ours.losses, ours.wrong, strict=True):
        folder = tmp_path / "adapter"
        write_peft_adapter(space, vector, folder, base_name="lm")
        logits = _plain_loop(source, folder, list(examples.inputs), phrases, average=average)
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        np.testing.assert_allclose(losses, plain, atol=1e-4)
        counted = exported_wrong(
            Task(base, space, spec), folder, examples, margin_tolerance=1e-5
        )
        np.testing.assert_array_equal(counted, wrong)
    assert ours.losses.std(axis=0).mean() > 0.05  # the adapters do differ


@pytest.mark.parametrize(("phrases", "average"), [(ONE, False), (SEVERAL, True)])
def test_fine_tuning_improves_on_the_language_model(
    source: Path, phrases: tuple[str, ...], average: bool
) -> None:
    base = _base(source, phrases, average=average)
    space = AdapterSpace.of(base, rank=8, last_layers=3)
    model = Task(base, space, _spec(base)).model()
    train, test = _texts(64), _texts(64, seed=1)
    scorer = BatchedScorer(model, margin_tolerance=0.0)
    before = scorer.score(np.zeros((1, model.space.dimension)), test)
    settings = FinetuneSettings(steps=100, learning_rate=0.05)
    result = finetune(model, train, seed=0, settings=settings)
    after = scorer.score(result.vector[None].astype(np.float64), test)
    assert after.losses.mean() < 0.7 * before.losses.mean()
    assert after.wrong.mean() < min(0.3, before.wrong.mean() - 0.1)


def test_a_certificate_end_to_end(source: Path, tmp_path: Path) -> None:
    base = _base(source, SEVERAL)
    space, spec, support = AdapterSpace.of(base, rank=2), _spec(base), _texts(40, seed=2)
    model = Task(base, space, _spec(base)).model()
    settings = FinetuneSettings(steps=30, learning_rate=0.1)
    pool = np.stack(
        [
            finetune(model, _texts(32, seed=s), seed=s, settings=settings).vector
            for s in range(3, 9)
        ]
    )
    bundle = Bundle(
        base_name="lm",
        base_revision="local",
        base_digest=base.digest,
        space=space,
        prior=GaussianPrior.fit(pool.astype(np.float64), seed=0),
        inputs=spec,
        labels=LABELS,
        recipes=RecipeTable(((1, UnionRecipe(candidates=32, delta=0.05)),)),
        notes={},
    )
    bundle.save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.inputs == spec
    result = personalize(
        bundle,
        model,
        support,
        client="c",
        key=KEY,
        folder=tmp_path / "out",
        duplicates_are_real=True,  # few words make equal texts
    )
    certificate = result.certificate
    assert verify_record(certificate).passed
    device = bundle.load_base(base.name)
    checks = [
        *check_bundle(certificate, bundle),
        *check_adapter(certificate, bundle, result.adapter),
        *check_data(certificate, bundle, device, result.adapter, support).checks,
    ]
    assert all(check.passed for check in checks), checks
    other = load_base_model(str(with_label_phrases(source, LABELS, ONE)), num_labels=2)
    assert other.digest != bundle.base_digest  # the phrases are part of the base model
    with pytest.raises(ModelError, match="other weights"):
        bundle.load_base(other.name)


def test_the_digest_binds_phrases_and_their_scoring(source: Path) -> None:
    digests = {
        _base(source, phrases, average=average).digest
        for phrases in (ONE, SEVERAL, ("great", "terrible"))
        for average in (False, True)
    }
    assert len(digests) == 6 - 2  # of one token, mean and sum are the same scores
    base = _base(source, ONE)
    assert _spec(base).to_config() != _spec(base, template="{text} :").to_config()


def test_long_texts_are_cut_and_templates_are_not(source: Path) -> None:
    base = _base(source, ONE)
    assert isinstance(base.model, LabelScorer)
    spec = _spec(base, max_length=8).bound_to(base)
    texts = np.array([" ".join(GOOD[:10]), GOOD[0]], dtype=object)
    encoded = spec.encode(texts)
    whole = tiny_tokenizer(words=WORDS)
    cut = whole(TEMPLATE.replace("{text}", " ".join(GOOD[:4])))["input_ids"]
    assert encoded["input_ids"][0].tolist() == cut
    assert encoded["attention_mask"].sum(dim=1).tolist() == [8, 5]


def test_phrases_that_say_nothing_are_refused(source: Path) -> None:
    for phrases, message in (
        (("great", "great"), "begins with 'great'"),
        (("very", "very great"), "'very great' begins with 'very'"),
        (("great", "unheard"), "'unheard' is empty or unknown"),
        (("great",), "1 label phrases for 2 labels"),
    ):
        with pytest.raises(ModelError, match=message):
            with_label_phrases(source, LABELS, phrases)
    # On average a longer phrase can win.
    with_label_phrases(source, LABELS, ("very", "very great"), average=True)
    with pytest.raises(SettingsError, match=r"must hold \{text\} once"):
        PromptInputs(8, "digest", template="no place")


def test_what_does_not_fit_the_model_is_refused(source: Path) -> None:
    base = _base(source, SEVERAL)
    with pytest.raises(ModelError, match="label phrases of 2 more do not fit"):
        _spec(base, max_length=31).bound_to(base)
    with pytest.raises(ModelError, match="leaves none for a text"):
        _spec(base, max_length=4).bound_to(base)


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path, source: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=len(WORDS) + 4,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        final_logit_softcapping=0.5,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    for path in source.glob("tokenizer*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="Gemma2ForCausalLM gives other log-probabilities"):
        with_label_phrases(tmp_path, LABELS, ONE)
