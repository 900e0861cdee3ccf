"""The way of the data to the steps: kept on the devices or streamed, batches cut to length."""

import dataclasses
import io
import itertools
import shutil
import types

import jax
import numpy as np
import pytest
import tiny
from flax import nnx

from s5jax.data import batches
from s5jax.data import buckets as bucketing
from s5jax.data.prepare import Request, prepare
from s5jax.data.task import Split, Task
from s5jax.evaluators import Context
from s5jax.evaluators.stride import check_stride
from s5jax.evaluators.stride import evaluate as evaluate_stride
from s5jax.mixers import s5
from s5jax.train import loop, program
from s5jax.train import resolve as configs
from s5jax.train.build import build, load_task
from s5jax.train.config import TaskConfig, UserError


def metrics(workdir):
    return (workdir / "metrics.jsonl").read_bytes()


def test_a_streamed_run_is_the_same_bit_for_bit():
    """Through two epochs: the metrics of every step, the state in the end, and an evaluation."""
    found = []
    for gib in (8, 0):
        config = tiny.config(f"--config.train.resident_gib={gib}", "--config.model.activation=none")
        experiment, state = build(config, load_task(config))
        made = program.Program(experiment)
        assert bool(made.feeder.resident) == bool(gib)
        state, steps = made.place(state), []
        order = itertools.islice(loop._order(experiment, None, 0), 38)
        for number, feed in enumerate(made.feeder.feeds("train", order)):
            state, metrics = made.step(state, feed, number)
            steps.append(metrics)
        found.append(jax.tree.map(np.asarray, (state, steps, made.evaluate(state, "val"))))
    assert len(found[0][1]) == 38
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_order_after_a_resumption_is_that_without_one():
    experiment, _ = build(tiny.config(), load_task(tiny.config()))
    whole = [next_.tolist() for next_ in itertools.islice(loop._order(experiment, None, 0), 3 * 19)]
    assert len({tuple(batch) for batch in whole}) == 3 * 19 and {len(batch) for batch in whole} == {64}
    for step in (1, 18, 19, 20, 38):
        after = itertools.islice(loop._order(experiment, None, step), 3 * 19 - step)
        assert [batch.tolist() for batch in after] == whole[step:]


def padded_task(n=200, length=300):
    """Which of two tokens is more frequent, in sequences of many lengths."""
    rng = np.random.default_rng(0)

    def split(n):
        lengths = rng.integers(1, length + 1, n)
        inputs = rng.integers(0, 3, (n, length))  # also beyond the lengths, where nothing must count
        valid = np.arange(length) < lengths[:, None]
        labels = ((inputs == 1) & valid).sum(1) > ((inputs == 2) & valid).sum(1)
        return Split(inputs.astype(np.uint8), labels.astype(np.int32), lengths)

    splits = {name: split(size) for name, size in (("train", n), ("val", 50), ("test", 33))}
    return Task(name="padded", splits=splits, length=length, num_classes=2, num_tokens=3)


def padded_config(*overrides):
    return tiny.config(
        "--config.model.encoder=one_hot",
        "--config.mixers.s5.scan_method=sequential",
        "--config.train.batch_size=16",
        "--config.model.activation=none",
        *overrides,
    )


def test_batches_cut_to_length_change_nothing_but_the_order():
    task = padded_task()
    values, updated = {}, {}
    for buckets in (0, 2):
        config = padded_config(f"--config.train.buckets={buckets}")
        experiment, state = build(config, task)
        made = program.Program(experiment)
        values[buckets] = made.evaluate(made.place(state), "test")
        short = np.argsort(task.splits["train"].lengths)[:16].astype(np.int32)
        (feed,) = made.feeder.feeds("train", [short])
        assert feed.length == (192 if buckets else None)
        updated[buckets] = made.step(made.place(state), feed, 0)
    assert values[2] == pytest.approx(values[0], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), updated[0], updated[2])


@pytest.mark.slow
def test_a_run_with_buckets_learns_and_is_resumed(tmp_path, monkeypatch):
    """Streamed and kept, a run with buckets has the same reports; it has as many steps as one without."""
    monkeypatch.setattr(loop, "load_task", lambda config: padded_task())
    for name, gib in (("resident", 8), ("streamed", 0)):
        config = padded_config(
            "--config.train.buckets=3", "--config.train.epochs=3", f"--config.train.resident_gib={gib}"
        )
        result = loop.train(config, tmp_path / name)
        assert result["steps"] == 3 * (200 // 16)
    assert metrics(tmp_path / "resident") == metrics(tmp_path / "streamed")


@pytest.mark.parametrize(("n", "batch_size", "seed"), [(200, 16, 0), (97, 8, 1), (5, 5, 2), (40, 7, 3)])
def test_an_epoch_in_buckets_has_each_example_once(n, batch_size, seed):
    lengths = np.random.default_rng(seed).integers(1, 1000, n)
    bounds = bucketing.bucket_bounds(lengths, 4, 1000)
    assert bounds[-1] == 1000 and bounds == sorted(set(bounds)) and all(b % 64 == 0 for b in bounds[:-1])
    bucket = bucketing.fitting(lengths, bounds)
    assert all(lengths <= np.array(bounds)[bucket])
    assert all((bucket == 0) | (lengths > np.array([0, *bounds])[bucket]))
    order = batches.epoch_order(jax.random.key(seed), 3, n, batch_size, bucket)
    assert order.shape == (n // batch_size, batch_size) and len(np.unique(order)) == order.size
    np.testing.assert_array_equal(order, batches.epoch_order(jax.random.key(seed), 3, n, batch_size, bucket))
    # Batches of one bucket, but for those that take up the rest of the one before.
    mixed = sum(len(np.unique(bucket[batch])) > 1 for batch in order)
    assert mixed < len(bounds)
    if n == 200:
        other = batches.epoch_order(jax.random.key(seed), 4, n, batch_size, bucket)
        assert not np.array_equal(order, other)
        assert not np.array_equal(bucket[order].max(1), np.sort(bucket[order].max(1)))  # short ones are not all first


def test_pairs_are_cut_to_the_longer_document():
    lengths = np.array([[10, 900], [70, 60], [3, 2]])
    assert bucketing.bucket_bounds(lengths, 3, 1000) == [128, 960, 1000]
    assert bucketing.fitting(lengths, [64, 128, 1000]).tolist() == [2, 1, 0]


def test_schedules_need_more_than_a_warm_up():
    config = tiny.config("--config.train.warmup_epochs=1", "--config.train.schedule_epochs=1.01")
    with pytest.raises(UserError, match="all 19 steps of the schedule would be warm-up"):
        build(config, load_task(config))


def test_another_task_than_the_file_s_drops_the_file_s_fields_of_it():
    values = configs.load_config(f"{tiny.ROOT}/configs/smnist.py:s5,permuted")
    configs.override(values, ["--config.task.name=digits"])
    assert configs.resolve(values).task == TaskConfig(name="digits")


def test_what_buckets_need():
    with pytest.raises(UserError, match=r"config\.train\.buckets cuts padding, which needs a task that pads"):
        load_task(tiny.config("--config.train.buckets=2"))


def test_buckets_need_mixers_that_padding_does_not_change(monkeypatch):
    task = types.SimpleNamespace(load=padded_task)
    monkeypatch.setattr("s5jax.train.build.load_module", lambda kind, name: task)
    config = padded_config("--config.train.buckets=2")
    load_task(config)
    monkeypatch.setattr(s5, "PADDING", "zeros")
    with pytest.raises(UserError, match=r"train\.buckets: what s5 computes depends on how far a batch is padded"):
        load_task(config)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_missing_samples_of_any_split_need_a_mixer_that_knows_them(monkeypatch, name):
    task = load_task(tiny.config())
    masked = dataclasses.replace(task.splits[name], mask=np.zeros((len(task.splits[name]), 64), bool))
    other = dataclasses.replace(task, splits={**task.splits, name: masked})
    monkeypatch.setattr("s5jax.train.build.load_module", lambda *_: types.SimpleNamespace(load=lambda: other))
    load_task(tiny.config())
    monkeypatch.setattr(s5, "MASK", False)
    with pytest.raises(UserError, match="with the data of task digits: s5 takes no mask of missing samples"):
        load_task(tiny.config())


def test_a_fault_in_reading_ahead_is_raised(monkeypatch):
    config = tiny.config("--config.train.resident_gib=0")
    task = load_task(config)
    made = program.Program(build(config, task)[0])
    index = np.arange(64, dtype=np.int32)
    feeds = made.feeder.feeds("train", [index, index + 1257, index])
    assert next(feeds).places.tolist() == list(range(64))
    with pytest.raises(IndexError):
        next(feeds)


def test_a_limit_takes_examples_from_all_over_a_split():
    """With their labels, in order, and of both classes where these alternate or follow each other."""
    for labels in (np.arange(4000) % 2, np.arange(4000) // 2000):
        inputs = np.arange(4000)[:, None, None] % 251
        split = Split(inputs.astype(np.uint8), labels.astype(np.int32))
        whole = Task(name="mine", splits=dict.fromkeys(("train", "val", "test"), split), length=1, num_classes=2)
        some = whole.limited(100).splits["train"]
        assert len(some) == 100 and 30 < some.labels.sum() < 70
        pairs = set(zip(split.inputs.ravel().tolist(), split.labels.tolist(), strict=True))
        assert set(zip(some.inputs.ravel().tolist(), some.labels.tolist(), strict=True)) <= pairs
        assert whole.limited(4000).splits["train"] is split
    assert len(load_task(tiny.config("--config.task.limit=100")).splits["val"]) == 100


@pytest.mark.parametrize("stride", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_evaluation_at_a_lower_sampling_rate(tmp_path, stride):
    """Every `stride`-th sample, step sizes multiplied by `stride`, against the model itself and as an evaluator."""
    config = tiny.config(f"--config.evaluators.stride.stride={stride}")
    task = load_task(config)
    experiment, state = build(config, task)
    made = program.Program(experiment)
    model = nnx.merge(experiment.graphdef, state.params, state.batch_stats)
    split = task.splits["val"]
    logits = np.float64(model(task.prepare(jax.numpy.asarray(split.inputs[:, ::stride])), rate=float(stride)))
    values = made.evaluate(made.place(state), "val", stride=stride)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert values["loss"] == pytest.approx(-log_probabilities[np.arange(180), split.labels].mean(), rel=1e-5)
    assert values["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == split.labels))
    assert values != made.evaluate(made.place(state), "val")
    context = Context(config, task, tmp_path, 0, made.evaluate)
    reported = evaluate_stride(context, made.place(state), config.evaluators["stride"].options)
    assert reported == {f"val/{name}_stride_{stride}": value for name, value in values.items()}


def test_strides_that_make_no_sense():
    config = tiny.config()
    task = load_task(config)
    split = task.splits["val"]
    timed = dataclasses.replace(split, rate=np.ones(split.inputs.shape[:2], np.float32))
    for other, stride, message in [
        *((task, stride, rf"stride {stride} must lie in 1\.\.64") for stride in (65, 0, -2)),
        (dataclasses.replace(task, splits={**task.splits, "val": timed}), 2, "has a rate for each step"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_stride(config, other, "val", stride)


def test_a_stride_that_leaves_nothing_of_a_sequence():
    config = tiny.config()
    task = load_task(config)
    split = task.splits["val"]
    mask = np.zeros(split.inputs.shape[:2], bool)
    mask[3, ::2] = True
    masked = dataclasses.replace(task, splits={**task.splits, "val": dataclasses.replace(split, mask=mask)})
    check_stride(config, masked, "val", 3)
    with pytest.raises(ValueError, match="stride 2 leaves nothing of some sequences"):
        check_stride(config, masked, "val", 2)


def test_strides_of_mixers_that_know_no_time(tmp_path):
    """Told before the first step where the config has them."""
    config = tiny.config("--config.model.pattern=('attention',)", "--config.mixers.attention.heads=2")
    with pytest.raises(ValueError, match="stride 2 multiplies step sizes, but attention takes no rate"):
        check_stride(config, load_task(config), "val", 2)
    config = dataclasses.replace(config, evaluators=tiny.config("--config.evaluators.stride.stride=2").evaluators)
    with pytest.raises(UserError, match=r"config\.evaluators\.stride: stride 2 multiplies step sizes, but attention"):
        loop.train(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


def weighted(weights):
    task = load_task(tiny.config())
    splits = {name: dataclasses.replace(split, weights=weights(len(split))) for name, split in task.splits.items()}
    return build(tiny.config(), dataclasses.replace(task, splits=splits))


def test_weights_of_sequences_do_not_stand_in_the_way_of_a_stride():
    experiment, state = weighted(np.ones)
    made = program.Program(experiment)
    assert made.evaluate(made.place(state), "val", stride=2)["accuracy"] < 1


def test_a_split_of_which_nothing_counts_has_no_metrics(tmp_path, monkeypatch):
    """In testing, where labels may be secret; in validation that is told, and not as a loss that diverged."""
    experiment, state = weighted(np.zeros)
    made = program.Program(experiment)
    assert made.evaluate(made.place(state), "test") == {}
    task = experiment.task
    train = dataclasses.replace(task.splits["train"], weights=None)
    monkeypatch.setattr(loop, "load_task", lambda _: dataclasses.replace(task, splits={**task.splits, "train": train}))
    monkeypatch.setattr(program, "train_step", tiny.train_step)
    with pytest.raises(UserError, match="nothing of the validation split of task digits counts: all its weights are 0"):
        loop.train(tiny.config(), tmp_path)


def test_fields_of_a_task():
    values = configs.ml_collections.ConfigDict({"task": {"name": "text", "val_split": 0.2}})
    config = configs.resolve(values)
    assert config.task.options.val_split == 0.2 and configs.resolve(config.to_dict()) == config
    for fields, message in [
        (
            {"val_slit": 0.2},
            r"unknown field config\.task\.val_slit; did you mean val_split\? .* name, data_dir, limit, val_split",
        ),
        ({"val_split": 2.0}, r"config\.task: val_split must lie in \[0, 1\), got 2\.0"),
        ({"limit": -1}, r"config\.task: limit must be at least 0"),
        (
            {"data_dir": "nowhere"},
            r"task text has not been prepared in nowhere: run `python scripts/prepare_data\.py text",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            load_task(configs.resolve({"task": {"name": "text", **fields}}))


def test_a_run_keeps_to_its_data(tmp_path):
    """The same store may lie elsewhere; another one of the same task is refused, in training and evaluation."""
    for folder, seed in (("first", 1), ("second", 2)):
        sizes = {"train": 20, "val": 5, "test": 5}
        request = Request(data_dir=tmp_path / folder, generate=True, seed=seed, sizes=sizes)
        prepare("listops", request, say=lambda _: None)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")

    def config(folder):
        values = configs.load_config(f"{tiny.ROOT}/configs/lra/listops.py:s5,debug")
        configs.override(values, [f"--config.task.data_dir={tmp_path / folder}"])
        return configs.resolve(values)

    run = tmp_path / "run"
    for folder in ("first", "copy"):
        with loop.workdirs.claim(run, config(folder)):
            data = loop.workdirs.check_data(run, config(folder), load_task(config(folder)))
            assert folder == "copy" or not (run / "data.json").exists()
            assert "generated by the grammar" in data["origin"]
            loop.workdirs.record(run, config(folder), data)
    with pytest.raises(UserError, match=r"data of task listops in .*/second are not those that .*/run was made with"):
        loop.train(config("second"), run)
    other = tmp_path / "other"
    with pytest.raises(UserError, match="there are 8 devices"):
        loop.train(dataclasses.replace(config("second"), num_devices=99), other)
    assert not (other / "data.json").exists()
    assert loop.workdirs.read_config(run).task.data_dir == str(tmp_path / "copy")
    assert loop.workdirs.read_config(run, tmp_path / "first").task.data_dir == str(tmp_path / "first")


def test_a_task_of_ones_own_may_read_prepared_data(tmp_path, monkeypatch):
    """Its module is not called as the store is."""
    sizes = {"train": 20, "val": 5, "test": 5}
    prepare("listops", Request(data_dir=tmp_path, generate=True, seed=1, sizes=sizes), say=lambda _: None)
    (tmp_path / "reader_of_mine").mkdir()
    theirs = configs.load_module("task", "listops").__name__
    (tmp_path / "reader_of_mine/again.py").write_text(f"from {theirs} import *\nfrom {theirs} import FORMAT")
    monkeypatch.syspath_prepend(tmp_path)
    values = configs.load_config(f"{tiny.ROOT}/configs/lra/listops.py:s5,debug")
    configs.override(values, ["--config.task.name=reader_of_mine.again", f"--config.task.data_dir={tmp_path}"])
    config = configs.resolve(values)
    task = load_task(config)
    assert len(task.splits["train"]) == 20
    data = loop.workdirs.check_data(tmp_path, config, task)
    assert data["task"] == "listops" and len(data["sha256"]) == 64
    (tmp_path / "prepared/listops/manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_task(config)


def test_data_may_lie_elsewhere_when_a_run_is_resumed(tmp_path):
    with loop.workdirs.claim(tmp_path, tiny.config()):
        loop.workdirs.record(tmp_path, tiny.config(), None)
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    with loop.workdirs.claim(
        tmp_path, tiny.config("--config.task.data_dir=elsewhere", "--config.train.resident_gib=1")
    ):
        pass
    with (
        pytest.raises(UserError, match=r"config\.task\.limit: 0 there, 7 now"),
        loop.workdirs.claim(tmp_path, tiny.config("--config.task.limit=7")),
    ):
        pass


def test_a_terminal_shows_how_far_an_evaluation_is(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    bar, terminal = program.tqdm.tqdm, Terminal()
    monkeypatch.setattr(program.tqdm, "tqdm", lambda *args, **given: bar(*args, **{**given, "delay": 0}))
    task = load_task(tiny.config())
    experiment, state = build(tiny.config(), task)
    made = program.Program(experiment)
    monkeypatch.setattr("sys.stderr", terminal)
    made.evaluate(made.place(state), "val")
    assert "evaluating val:   0%" in terminal.getvalue() and "/3 [" in terminal.getvalue()


def test_without_a_terminal_an_evaluation_says_from_time_to_time_how_far_it_is(monkeypatch, capsys):
    task = load_task(tiny.config())
    experiment, state = build(tiny.config(), task)
    made = program.Program(experiment)
    made.evaluate(made.place(state), "val")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(program, "SILENCE", -1.0)
    made.evaluate(made.place(state), "val")
    assert capsys.readouterr().out.splitlines() == [f"evaluating val: {k} of 3 batches" for k in (1, 2, 3)]
