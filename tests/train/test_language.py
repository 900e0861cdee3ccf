"""Training of language models: the loss of each token once, and state that is carried through a text."""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from everyday import variants
from flax import nnx

from s5jax.data.task import Split, Task
from s5jax.models.generate import generate
from s5jax.objectives import next_token
from s5jax.train import loop, resolve, trained
from s5jax.train.build import build, load_task
from s5jax.train.config import UserError
from s5jax.train.program import Program
from s5jax.train.step import train_step

FIELDS = (
    "--config.model.depth=1",
    "--config.model.d_model=4",
    "--config.model.mlp=0",
    "--config.model.activation=none",
    "--config.model.remat=none",
    "--config.mixers.s5.state_size=4",
    "--config.mixers.s5.blocks=1",
    "--config.task.context=16",
    "--config.train.batch_size=8",
    "--config.train.epochs=2",
    "--config.num_devices=1",
    "--config.log.every_steps=4",
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("".join(rng.choice(["the cat ", "a dog ", "sat. ", "ran\n"], 600)))
    return file


def config(text: pathlib.Path, *overrides: str, model: str = "s5"):
    values = resolve.load_config(f"{tiny.ROOT}/configs/lm/text_file.py:{model}")
    fields = [field for field in FIELDS if ".s5." not in field or "s5" in values.model.pattern]
    resolve.override(values, [f"--config.task.path={text}", *fields, *overrides])
    return resolve.resolve(values)


def documents(n, length=40, tokens=9):
    """Texts of some lengths, with a weight for each token."""
    rng = np.random.default_rng(n)
    inputs, labels = rng.integers(0, tokens, (2, n, length)).astype(np.uint8)
    weights = (rng.random((n, length)) < 0.8).astype(np.float32)
    lengths = rng.choice([1, length // 3, length], n)  # for each of which the model is compiled
    return Split(inputs, labels, lengths.astype(np.int32), weights=weights)


def by_hand(model, split, examples):
    """Loss, correct predictions and weight over tokens, in float64; each example read alone, without padding."""
    loss = correct = weight = 0.0
    model = jax.jit(model)
    for i in examples:
        length = int(split.lengths[i])
        logits = np.asarray(model(jnp.asarray(split.inputs[i, :length])[None]), np.float64)[0]
        labels, w = split.labels[i, :length], np.float64(split.weights[i, :length])
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss -= (w * log_p[np.arange(length), labels]).sum()
        correct += (w * (logits.argmax(-1) == labels)).sum()
        weight += w.sum()
    return loss, correct, weight


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--config.train.buckets=3",), marks=pytest.mark.slow),
        pytest.param(("--config.optim.micro_batches=4",), marks=pytest.mark.slow),
        ("--config.num_devices=8", "--config.train.buckets=2"),
        pytest.param(("--config.num_devices=4", "--config.optim.micro_batches=2"), marks=pytest.mark.slow),
    ],
    ids=["plain", "buckets", "parts", "eight-devices", "four-devices-parts"],
)
def test_every_token_counts_once(text, fields):
    conf = config(text, "--config.train.carry_state=false", *fields)
    splits = {"train": documents(40), "val": documents(21), "test": documents(13)}
    given = {"per_step": True, "objective": "next_token", "judge": ("loss", "min")}
    task = Task("documents", splits, 40, num_classes=9, num_tokens=9, **given)
    experiment, state = build(conf, task)
    program, model = Program(experiment), nnx.merge(experiment.graphdef, state.params, state.batch_stats)
    for name in ("val", "test"):  # of which the last batch is not full
        loss, correct, weight = by_hand(model, splits[name], range(len(splits[name])))
        expected = {
            "loss": loss / weight,
            "accuracy": correct / weight,
            "bits_per_token": loss / weight / np.log(2),
            "perplexity": np.exp(loss / weight),
        }
        assert program.evaluate(program.place(state), name) == pytest.approx(expected, rel=1e-6)
    order = np.arange(8, dtype=np.int32) * 3
    (feed,) = program.feeder.feeds("train", [order])
    loss, _, weight = by_hand(model, splits["train"], order)
    _, metrics = program.step(program.place(state), feed, 0)
    assert np.float64(metrics["loss"]) == pytest.approx([loss, weight], rel=1e-6)


@variants(["s5"], model=["s5", "hybrid", "h3", "h3-hybrid", "hyena", "mega"])
def test_a_carried_state_is_read_on_from_and_not_differentiated(text, model):
    """Against single steps through both pieces of the text, with a stop at the border."""
    hybrid = "hybrid" in model
    fields = ["--config.model.depth=3" if hybrid else "--config.model.depth=2"]
    fields += ["--config.optim.name=sgd", "--config.optim.clip_norm=0.0"]
    fields += ["--config.mixers.attention.window=24", "--config.mixers.attention.heads=2"] if hybrid else []
    conf = config(text, *fields, model=model)
    task = load_task(conf)
    experiment, state = build(conf, task)
    train, size = task.splits["train"], 8
    parts = {"optimizer": experiment.optimizer, "objective": experiment.objective}
    pieces = [[lane * 5 + t for lane in range(size)] for t in range(2)]
    given = [(jnp.asarray(train.inputs[i], jnp.int32), jnp.asarray(train.labels[i], jnp.int32)) for i in pieces]

    def loss(params, memory, piece):
        net = nnx.merge(experiment.graphdef, params, state.batch_stats)
        outputs, memory = net.rollout(memory, piece[0])
        log_p = jax.nn.log_softmax(outputs)
        return -jnp.take_along_axis(log_p, piece[1][..., None], -1).mean(), memory

    loss_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    start = nnx.merge(experiment.graphdef, state.params, state.batch_stats).init_state(size)
    now, params, memory = state, state.params, start
    step = jax.jit(functools.partial(train_step, graphdef=experiment.graphdef, **parts))
    for i, (inputs, labels) in enumerate(given):
        hyper = {**experiment.hyper(0), "fresh": np.bool_(i == 0), "lr": np.full_like(experiment.rates(0), 0.1)}
        batch = {"inputs": inputs, "labels": labels}
        now, metrics = step(now, batch, hyper)
        (expected, memory), grads = loss_and_gradient(params, memory, (inputs, labels))
        params, grads = jax.tree.map(np.asarray, (params, grads))
        decays = jax.tree.map(lambda i: experiment.optimizer.groups[i].weight_decay, experiment.optimizer.labels)
        params = jax.tree.map(lambda p, g, decay: p - np.float32(0.1) * (g + decay * p), params, grads, decays)
        assert float(metrics["loss"][0] / metrics["loss"][1]) == pytest.approx(float(expected), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), now.params, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), now.memory, memory)
    fresh, _ = loss_and_gradient(params, start, given[1])
    assert abs(float(fresh[0]) - float(expected)) > 1e-4  # what is carried does matter


def test_an_evaluation_reads_a_text_in_lanes(text):
    """With two lanes, each reads its half of the text from beginning to end."""
    conf = config(text, "--config.train.batch_size=2")
    task = load_task(conf)
    experiment, state = build(conf, task)
    val = task.splits["val"]
    model = jax.jit(nnx.merge(experiment.graphdef, state.params, state.batch_stats))
    half, total, count = -(-len(val) // 2), 0.0, 0
    for lane in (range(half), range(half, len(val))):
        lengths = np.full(len(val), task.length) if val.lengths is None else val.lengths
        inputs, labels = (np.concatenate([x[i, : lengths[i]] for i in lane]) for x in (val.inputs, val.labels))
        logits = np.asarray(model(jnp.asarray(inputs)[None])[0], np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= log_p[np.arange(len(labels)), labels].sum()
        count += len(labels)
    assert Program(experiment).evaluate(state, "val")["loss"] == pytest.approx(total / count, rel=1e-6)


PATTERN = ("--config.model.pattern=('s5','attention')", "--config.model.depth=2", "--config.mixers.attention.heads=2")
HYBRID = (*PATTERN, "--config.mixers.attention.window=24", "--config.train.checkpoint_every_steps=5")


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """The directory of a finished run of S5 and attention that carry their states, and its result."""
    workdir = tmp_path_factory.mktemp("finished")
    with jax.numpy_dtype_promotion("standard"):
        return workdir, loop.train(config(text, *HYBRID, model="hybrid"), workdir)


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_carries_its_state_is_resumed_exactly(text, finished, tmp_path, monkeypatch, devices):
    conf = config(text, *HYBRID, f"--config.num_devices={devices}", model="hybrid")
    whole, result = finished if devices == 1 else (tmp_path / "whole", loop.train(conf, tmp_path / "whole"))
    step = Program.step

    def failing(self, state, feed, number):
        if number == 13:
            raise KeyboardInterrupt
        return step(self, state, feed, number)

    monkeypatch.setattr(Program, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        loop.train(conf, tmp_path / "cut")
    monkeypatch.undo()
    assert loop.train(conf, tmp_path / "cut") == result
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_what_follows_from_the_loss(text):
    task = load_task(config(text))
    assert next_token.summary(task, np.log(8)) == pytest.approx({"bits_per_byte": 3, "perplexity": 8})
    assert next_token.summary(task, 1e4)["perplexity"] == np.inf


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            ("--config.mixers.s5.bidirectional=true",),
            "next_token needs a causal model, but s5 reads in both directions",
        ),
        (("--config.optim.micro_batches=2",), "config.optim.micro_batches cannot be combined with config.train.carry"),
        (
            (*PATTERN, "--config.mixers.attention.window=0"),
            "carry_state: attention without a window needs a max_length",
        ),
        (("--config.task.limit=100",), "config.task.limit cannot be combined with config.train.carry_state"),
    ],
)
def test_what_carrying_a_state_needs(text, fields, message):
    conf = config(text, *fields)
    with pytest.raises(UserError, match=message):
        build(conf, load_task(conf))


def test_sequences_that_are_not_pieces_of_one_text():
    conf = tiny.config("--config.train.carry_state=true", "--config.mixers.s5.bidirectional=false")
    with pytest.raises(UserError, match="the sequences of task digits are not pieces of one text"):
        build(conf, load_task(conf))


def test_a_run_goes_on_from_prompts(finished):
    """In pieces, from its own directory; bytes of a character that is cut are held back until the rest is there."""
    model = trained.load_language_model(finished[0])
    pieces = list(model.go_on(["the cat", "a"], 40, seed=1, temperature=0.0))
    assert all(len(piece) == 2 for piece in pieces)
    prompts, lengths = np.zeros((2, 7), np.int32), np.array([7, 1], np.int32)
    for row, prompt in zip(prompts, (b"the cat", b"a"), strict=True):
        row[: len(prompt)] = list(prompt)
    drawn = np.concatenate(
        list(generate(model.model, prompts, lengths, 40, jax.random.key(1), temperature=0.0)), axis=1
    )
    for texts, tokens in zip(zip(*pieces, strict=True), drawn, strict=True):
        assert "".join(texts) == bytes(tokens.tolist()).decode("utf-8", errors="replace")
    with pytest.raises(UserError, match="a prompt must have at least one character"):
        next(model.go_on(["a", ""], 1))


def test_a_text_that_has_changed_is_not_gone_on_with(text, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    conf, run = config(copy), tmp_path / "run"
    with loop.workdirs.claim(run, conf):
        loop.workdirs.record(run, conf, loop.workdirs.check_data(run, conf, load_task(conf)))
    copy.write_bytes(text.read_bytes().replace(b"cat", b"cow"))
    with pytest.raises(UserError, match="are not those that"):
        loop.train(conf, run)


def test_the_objective_by_its_name(text):
    """Named in the config it is checked on a batch; it has no numbers of its own."""
    named = config(text, "--config.objective.module=next_token")
    assert build(named, load_task(named))[0].hyper(0)["objective"] == {}


def test_bytes_cut_within_a_character_are_shown_in_the_end():
    model = trained.LanguageModel(None, {"num_tokens": 256})
    assert [*model._decoded(iter([np.array([[0xC3]]), np.array([[0xA4]]), np.array([[0xC3]])]))] == [
        *([""], ["ä"], [""]),
        ["\ufffd"],
    ]


def test_a_language_model_without_its_vocabulary(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run/data.json").unlink()
    with pytest.raises(UserError, match=r"does not hold a language model, or its data\.json was removed"):
        trained.load_language_model(tmp_path / "run")
