"""Models of Hugging Face and adapters of PEFT from a configuration, with masks."""

import pytest
import torch
import torch.nn.functional as F

from metalearn import functional, inner, outer
from metalearn.types import Batch, Episode
from tests.cases import relative_difference

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SMALL = {"vocab_size": 50, "num_hidden_layers": 1, "intermediate_size": 32}
SMALL |= {"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 16}
DROPOUTS = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = transformers.BertConfig(**SMALL, **DROPOUTS, num_labels=3)
LLAMA = transformers.LlamaConfig(**SMALL, num_key_value_heads=1)
GPT2 = transformers.GPT2Config(
    vocab_size=50,
    n_embd=16,
    n_layer=1,
    n_head=2,
    n_positions=16,
    bos_token_id=0,
    eos_token_id=0,
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
)


def last(output):
    return output.logits[:, -1, :3]


MODELS = {
    "BERT": (lambda: transformers.BertForSequenceClassification(BERT), "logits"),
    "GPT-2": (lambda: transformers.GPT2LMHeadModel(GPT2), last),
    "Llama": (lambda: transformers.LlamaForCausalLM(LLAMA), last),
}


def texts(masked):
    torch.manual_seed(1)
    x = {"input_ids": torch.randint(50, (2, 4, 8))}
    if masked:
        x["attention_mask"] = torch.ones(2, 4, 8, dtype=torch.int64)
        x["attention_mask"][:, 1, 5:] = 0
    batch = Batch(x, torch.randint(3, (2, 4)))
    return Episode(batch, batch)


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "masked"])
@pytest.mark.parametrize("name", MODELS)
def test_models_work_by_default_and_vmapped_as_in_a_loop(name, masked):
    torch.manual_seed(0)
    build, output = MODELS[name]
    model = build().double()
    gradients = []
    for batching in ("vmap", "loop"):
        options = {"num_steps": 1, "output": output, "batching": batching}
        learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), **options)
        gradients.append(learner.estimate(texts(masked)).gradient)
    assert relative_difference(*gradients) < 1e-10


def test_their_own_loss_and_accuracy():
    model = transformers.BertForSequenceClassification(BERT)
    batch = texts(True).support
    labelled = Batch({**batch.x, "labels": batch.y}, batch.y)
    learner = outer.MAML(model, functional.own_loss, inner.SGD(0.1), num_steps=1)
    learner(Episode(labelled, labelled)).backward()
    outputs = learner.adapt(labelled)[0](**{k: v[0] for k, v in labelled.x.items()})
    assert 0 <= functional.accuracy(outputs, batch.y[0]) <= 1


def test_only_adapters_adapt():
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    model = peft.get_peft_model(transformers.BertForSequenceClassification(BERT), config)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.5), num_steps=1, output="logits")
    learner(texts(True)).backward()
    fast = learner.meta.init
    assert set(fast) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora" in name or "modules_to_save" in name for name in fast)
    assert not learner.meta.shared
    adapted = learner.adapt(texts(True).support)[0]
    after = dict(adapted.named_parameters())
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)


def test_frozen_adapters():
    config = peft.LoraConfig(r=2, target_modules=["query"], inference_mode=True)
    model = peft.get_peft_model(transformers.BertForSequenceClassification(BERT), config)
    with pytest.raises(ValueError, match="parameters that require grad; got none. Call .*adapters"):
        outer.MAML(model, F.cross_entropy, inner.SGD(0.5), num_steps=1, output="logits")
