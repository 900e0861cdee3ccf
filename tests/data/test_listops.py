import csv
import functools
import hashlib
import itertools
import json
import pathlib
import pickle
import statistics

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from s5jax.data import listops, preparation, store, trees
from s5jax.data.preparation import Request
from s5jax.data.store import Arrays
from s5jax.data.task import DataError

REFERENCE = pathlib.Path(__file__).parent.parent / "reference"
SAMPLE = (REFERENCE / "listops_sample.tsv").read_text()

WORDS = ["<pad>", "<unk>", "<eos>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X"]

SIGNIFICANCE = 1e-3
"""Of each test of the distribution, whose sample is fixed: a grammar that is right fails one in a thousand seeds."""


def tokens_of(source):
    """As the published tokenizer is described: parentheses dropped, ] as X, split at blanks, <eos> behind."""
    return [*source.replace("(", "").replace(")", "").replace("]", "X").split(), "<eos>"]


def value_of(source):
    """The value of a tree by its parentheses: pairs, the left one of which collects an operator's arguments."""
    words = iter(source.split())

    def read():
        word = next(words)
        if word != "(":
            return int(word) if word.isdigit() else word
        left, right = read(), read()
        assert next(words) == ")"
        if right != "]":
            return [*left, right] if isinstance(left, list) else [left, right]
        operator, *arguments = left
        assert 2 <= len(arguments) <= 10
        if operator == "[MED":
            return int(statistics.median(arguments))
        return {"[MIN": min, "[MAX": max, "[SM": lambda x: sum(x) % 10}[operator](arguments)

    value = read()
    assert next(words, None) is None
    return value


def rows_of(text):
    header, *rows = csv.reader(text.splitlines(), delimiter="\t")
    assert header == ["Source", "Target"]
    return [(source, int(target)) for source, target in rows]


def put(data_dir, text=SAMPLE, place="lra_release/listops-1000", **other):
    """Writes three official files, all with the same text but those named."""
    folder = data_dir / place
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"basic_{split}.tsv").write_bytes(other.get(split, text).encode())
    return folder


def run(pieces):
    """All pieces, each as another process would get it."""
    parts = [pickle.loads(pickle.dumps(piece))() for piece in pieces]
    return Arrays(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def read(data_dir):
    return run(listops.plan(Request(data_dir=data_dir, subset=True)).pieces["train"])


def make(seed=0, **sizes):
    plan = listops.plan(Request(data_dir=pathlib.Path("nowhere"), seed=seed, sizes=sizes))
    return {split: run(pieces) for split, pieces in plan.pieces.items()}


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@functools.cache
def sampled():
    return trees.sample(np.random.RandomState(1), 2500)


def test_published_trees(tmp_path):
    put(tmp_path)
    arrays = read(tmp_path)
    rows = rows_of(SAMPLE)
    assert list(listops.VOCABULARY) == WORDS
    assert len(rows) == 40 and arrays.inputs.shape == (40, 2048) and arrays.inputs.dtype == np.uint8
    for i, (source, target) in enumerate(rows):
        tokens = tokens_of(source)
        assert arrays.labels[i] == target == value_of(source)
        assert arrays.lengths[i] == len(tokens)
        assert [WORDS[t] for t in arrays.inputs[i]] == tokens + ["<pad>"] * (2048 - len(tokens))


@pytest.mark.parametrize("place", ["lra_release/lra_release/listops-1000", "lra_release/listops-1000", "listops-1000"])
def test_official_files_are_found_and_come_first(tmp_path, place):
    folder = put(tmp_path, place=place)
    plan = listops.plan(Request(data_dir=tmp_path, seed=3))
    assert plan.sources == [folder / f"basic_{split}.tsv" for split in ("train", "val", "test")]
    assert str(folder) in plan.origin and plan.facts == {"vocabulary": WORDS}
    for without in (Request(data_dir=tmp_path, seed=3, generate=True), Request(data_dir=tmp_path / "other", seed=3)):
        plan = listops.plan(without)
        assert not plan.sources and plan.origin.endswith("from seed 3") and plan.generated and plan.distinct
        assert {split: len(pieces) for split, pieces in plan.pieces.items()} == {"train": 96, "val": 2, "test": 2}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("piece_bytes", [977, 6000, 50_000])
def test_pieces_of_a_file_are_the_file(tmp_path, monkeypatch, end, piece_bytes):
    put(tmp_path)
    whole = read(tmp_path)
    monkeypatch.setattr(listops, "PIECE_BYTES", piece_bytes)
    put(tmp_path / "other", SAMPLE.replace("\n", end).removesuffix(end))  # the last line may lack its end
    plan = listops.plan(Request(data_dir=tmp_path / "other"))
    assert len(plan.pieces["train"]) == -(-(len(SAMPLE) - 14) // piece_bytes) or end == "\r\n"
    assert_equal(run(plan.pieces["train"]), whole)


def tree(arguments):
    return f"{'( ' * (len(arguments) + 1)}[MAX {''.join(f'{a} ) ' for a in arguments)}] )"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("( ( ( [MAX 3 ) [FOO ) ] )\t4", r"line 3: unknown word '\[FOO'; is this ListOps\?"),
        ("( ( ( [MAX 3 ) 14 ) ] )\t4", "line 3: unknown word '14'"),
        ("( ( ( [MAX 3 ) é ) ] )\t4", "line 3: unknown word 'é'"),
        (f"{tree([3, 4])}\tfour", "line 3: the target must be a digit from 0 to 9, not 'four'"),
        (f"{tree([3, 4])}\t10", "line 3: the target must be a digit from 0 to 9, not '10'"),
        (f"{tree([3, 4])}\t-1", "line 3: the target must be a digit from 0 to 9, not '-1'"),
        (f"{tree([3, 4])}\t4.0", r"line 3: the target must be a digit from 0 to 9, not '4\.0'"),
        (tree([3, 4]), r"line 3: 1 columns instead of two, Source and Target; is the file cut off\?"),
        (f"{tree([3, 4])}\t4\t4", "line 3: 3 columns instead of two"),
        ("\n", "line 3: 1 columns instead of two"),
        (f"{tree([3, 4])}\t", r"line 3: the target must be a digit from 0 to 9, not ''; is the file cut off\?"),
        ("( ( ( [MAX 3 ) 4 )", "line 3: 1 columns instead of two"),
        ("( ( ( [MAX 3 ) 4 )\t4", r"line 3: brackets are missing, or too many; is the file damaged\?"),
        (f"{tree([3, 4])} ] )\t4", "line 3: brackets are missing, or too many"),
        (f"{tree([3, 4])} 5\t4", "line 3: brackets are missing, or too many"),
        ("\t4", "line 3: brackets are missing, or too many"),
        (f"{tree([1] * 2046)}\t1", "line 3: 2,048 tokens, more than 2,047"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [30, 2**26])
def test_bad_lines_are_named(tmp_path, monkeypatch, lines, message, piece_bytes):
    monkeypatch.setattr(listops, "PIECE_BYTES", piece_bytes)
    folder = put(tmp_path, train=f"Source\tTarget\n{tree([1, 2])}\t2\n{lines}")
    with pytest.raises(DataError, match=rf"^{folder}/basic_train\.tsv, {message}"):
        read(tmp_path)


def test_the_longest_tree_fits(tmp_path):
    put(tmp_path, f"Source\tTarget\n{tree([1] * 2045)}\t1\n")
    arrays = read(tmp_path)
    assert arrays.lengths.tolist() == [2048] and WORDS[arrays.inputs[0, -1]] == "<eos>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{tree([1, 2])}\t2\n", r"line 1: the header must be 'Source\\tTarget', not '\( \( \( \[MAX 1 \) 2"),
        ("Target\tSource\n", r"line 1: the header must be .* not 'Target\\tSource"),
        ("", "line 1: the header must be .* not ''"),
        ("Source\tTarget\n", " has no lines below its header"),
    ],
)
def test_bad_headers_are_named(tmp_path, text, message):
    folder = put(tmp_path, val=text)
    with pytest.raises(DataError, match=rf"^{folder}/basic_val\.tsv,? ?{message}"):
        read(tmp_path)


def test_missing_files_are_named(tmp_path):
    folder = put(tmp_path)
    (folder / "basic_val.tsv").unlink()
    with pytest.raises(DataError, match=rf"^{folder} lacks basic_val\.tsv: get them from https://.*long-range-arena"):
        read(tmp_path)


def text_of(tree):
    """A tree in the words of the official files, ( ( ( [MAX 3 ) 4 ) ] ): operators take their arguments one by one."""
    nested = [[]]
    for symbol in tree:
        if trees.MIN <= symbol < trees.CLOSE:
            nested.append([])
        nested[-1].append(trees.SYMBOLS[symbol])
        if symbol == trees.CLOSE:
            operator, *arguments = nested.pop()
            nested[-1].append(" ".join(["("] * len(arguments) + [operator] + [f"{word} )" for word in arguments]))
    return nested[0][0]


def write_tsv(path, examples):
    """Examples of a store as an official file."""
    rows = zip(examples.inputs, examples.lengths, examples.labels, strict=True)
    sources = [(text_of((np.asarray(tokens[: n - 1]) - 3).tobytes()), label) for tokens, n, label in rows]
    path.write_text("Source\tTarget\n" + "".join(f"{source}\t{label}\n" for source, label in sources))


def test_generated_values_and_the_format_of_files(tmp_path):
    made = make(train=300)["train"]
    path = put(tmp_path, "") / "basic_train.tsv"
    write_tsv(path, made)
    rows = rows_of(path.read_text())
    assert [value_of(source) for source, _ in rows] == made.labels.tolist() == [target for _, target in rows]
    assert all(500 < len(tokens_of(source)) - 1 < 2000 for source, _ in rows)
    for split in ("val", "test"):
        (path.parent / f"basic_{split}.tsv").write_text(SAMPLE)
    assert_equal(read(tmp_path), made)
    write_tsv(path, run(listops.plan(Request(data_dir=tmp_path)).pieces["val"]))
    assert path.read_text() == SAMPLE


def test_small_trees_are_all_there():
    """Every tree of less than five symbols, once."""
    found = trees.sample(np.random.RandomState(0), 410, longer_than=0, shorter_than=5)
    pairs = [f"( ( ( {o} {a} ) {b} ) ] )" for o in WORDS[13:17] for a, b in itertools.product(range(10), repeat=2)]
    expected = {source: value_of(source) for source in [*"0123456789", *pairs]}
    assert {text_of(tree): value for tree, value in found.items()} == expected


def distribution():
    return json.loads((REFERENCE / "listops_distribution.json").read_text())


def test_lengths_are_distributed_as_published():
    """Kolmogorov and Smirnov's test of two samples, looking at the published deciles only."""
    reference, n, m = distribution()["length"], len(sampled()), 3000
    lengths = np.array([len(tree) for tree in sampled()])
    assert 500 < lengths.min() < 510 and 1950 < lengths.max() < 2000
    bound = scipy.stats.kstwobign.isf(SIGNIFICANCE) * np.sqrt((n + m) / (n * m))
    shares = [(lengths <= decile).mean() for decile in reference["deciles"][1:-1]]
    np.testing.assert_allclose(shares, np.arange(1, 10) / 10, rtol=0, atol=bound)
    bound = scipy.stats.norm.isf(SIGNIFICANCE / 2) * reference["std"] * np.sqrt(1 / n + 1 / m)
    assert lengths.mean() == pytest.approx(reference["mean"], abs=bound)


def exact_lengths():
    """Probabilities of 0 to 1999 symbols, from the grammar: G(z) = 3/4 z + 1/4 z^2 mean_k G(z)^k, level by level."""
    G = np.eye(1, 2000, 1)[0]  # a digit
    for _ in range(9):
        powers = [G]
        while len(powers) < 10:
            powers.append(scipy.signal.fftconvolve(powers[-1], G)[:2000])
        G = np.concatenate([np.zeros(2), 0.25 * np.mean(powers[1:], axis=0)])[:2000]
        G[1] += 0.75
    return G


def test_lengths_are_distributed_as_the_grammar_says():
    kept = np.where(np.arange(2000) > 500, exact_lengths(), 0)
    assert kept.sum() == pytest.approx(distribution()["accept_rate"], rel=0.05)  # the reference's own error is 1.8 %
    counts = np.bincount([len(tree) for tree in sampled()], minlength=2000)
    distance = np.abs(np.cumsum(counts) / counts.sum() - np.cumsum(kept) / kept.sum()).max()
    assert distance < scipy.stats.kstwobign.isf(SIGNIFICANCE) / np.sqrt(counts.sum())
    grown = 30_000
    accepted = len(trees.shapes(np.random.RandomState(2), grown)[0])
    assert scipy.stats.binomtest(accepted, grown, kept.sum()).pvalue > SIGNIFICANCE


def homogeneous(ours, published):
    """Whether two rows of counts are of one distribution, by the chi-square test."""
    return scipy.stats.chi2_contingency([ours, published]).pvalue > SIGNIFICANCE


def test_targets_and_symbols_are_distributed_as_published():
    reference = distribution()
    targets = np.bincount(list(sampled().values()), minlength=10)
    assert homogeneous(targets, 3000 * np.array(reference["target_freq"]))
    symbols = np.bincount(np.frombuffer(b"".join(sampled()), np.uint8), minlength=15)
    per_tree = symbols[10:14].sum() / len(sampled())
    published = [reference["operator_freq"][operator] for operator in trees.SYMBOLS[10:14]]
    assert homogeneous(symbols[10:14], 3000 * per_tree * np.array(published))
    assert scipy.stats.chisquare(symbols[:10]).pvalue > SIGNIFICANCE  # digits are uniform
    words = np.array([[source.split().count(word) for word in trees.SYMBOLS] for source, _ in rows_of(SAMPLE)])
    share = symbols[:10].sum() / symbols.sum()  # of digits among symbols; trees differ in it by little
    ratios = words[:, :10].sum(1) / words.sum(1)
    assert ratios.mean() == pytest.approx(share, abs=4 * ratios.std() / np.sqrt(len(ratios)))


def test_as_many_trees_are_accepted_as_published():
    grown, rate = 30_000, distribution()["accept_rate"]
    accepted = len(trees.shapes(np.random.RandomState(2), grown)[0]) / grown
    error = np.sqrt(rate * (1 - rate) * (1 / grown + rate / 3000))
    assert accepted == pytest.approx(rate, abs=scipy.stats.norm.isf(SIGNIFICANCE / 2) * error)


def test_trees_depend_on_seed_split_and_place_alone():
    whole = make(train=1150, test=100)
    assert [len(split.labels) for split in whole.values()] == [1150, 100]
    again = make(train=1150)["train"]
    assert_equal(again, whole["train"])
    fewer = make(train=60)["train"]
    assert_equal(fewer, [x[:60] for x in whole["train"]])
    plan = listops.plan(Request(data_dir=pathlib.Path("nowhere"), sizes={"train": 5000}))
    assert len(plan.pieces["train"]) == 5
    assert_equal([x[:150] for x in plan.pieces["train"][1]()], [x[1000:] for x in whole["train"]])
    several = [whole["train"], whole["test"], make(seed=1, train=100)["train"]]
    rows = np.concatenate([arrays.inputs for arrays in several])
    assert len(np.unique(rows, axis=0)) == len(rows) == 1350


def test_trees_are_the_same_everywhere():
    """Recorded; what NumPy's RandomState gives never changes."""
    made = make(train=20)["train"]
    assert hashlib.sha256(made.inputs.tobytes() + made.labels.tobytes()).hexdigest()[:16] == "eeb68d47ac53ef2c"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_have_a_range(seed):
    with pytest.raises(DataError, match=rf"listops: seed {seed} is outside 0\.\.4294967295"):
        make(seed=seed)


@pytest.mark.parametrize("official", [True, False])
def test_from_files_or_generator_to_the_task(tmp_path, official):
    if official:
        put(tmp_path)
    sizes = {"train": 12, "val": 3, "test": 3}
    request = Request(data_dir=tmp_path, subset=official, sizes=None if official else sizes)
    preparation.prepare("listops", request, say=lambda line: None)
    task = listops.load(store.read(listops.FORMAT, tmp_path))
    expected = read(tmp_path) if official else make(**sizes)["train"]
    train = task.splits["train"]
    assert_equal((train.inputs, train.labels, train.lengths), expected)
    assert task.example_shape() == (2048,) and task.num_tokens == 20 and task.num_classes == 10
