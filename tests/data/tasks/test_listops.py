"""ListOps from files in the official layout, and generated."""

import hashlib
import itertools
import pathlib

import numpy as np
import pytest
from data_helpers import join, prepare
from listops_reference import SAMPLE, rows_of, text_of, value_of

from s5jax.data import store
from s5jax.data.prepare import Request
from s5jax.data.task import DataError
from s5jax.data.tasks import listops

WORDS = ["<pad>", "<unk>", "<eos>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X"]


def tokens_of(source):
    """The published tokenizer, as it is described: parentheses dropped, ] as X, split at blanks, <eos> behind."""
    return [*source.replace("(", "").replace(")", "").replace("]", "X").split(), "<eos>"]


def put(data_dir, text=SAMPLE, place="lra_release/listops-1000", **other):
    """Writes three official files, all with the same text but those named."""
    folder = data_dir / place
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        (folder / f"basic_{split}.tsv").write_bytes(other.get(split, text).encode())
    return folder


def read(data_dir):
    return join(listops.plan(Request(data_dir=data_dir, subset=True)).parts["train"])


def make(seed=0, **sizes):
    plan = listops.plan(Request(data_dir=pathlib.Path("nowhere"), generate=True, seed=seed, sizes=sizes))
    return {split: join(parts) for split, parts in plan.parts.items()}


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


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


PLACES = ["lra_release/lra_release/listops-1000", "lra_release/listops-1000", "listops-1000", "listops", "."]


@pytest.mark.parametrize("place", PLACES)
def test_official_files_are_found(tmp_path, place):
    folder = put(tmp_path, place=place)
    plan = listops.plan(Request(data_dir=tmp_path))
    assert plan.sources == [folder / f"basic_{split}.tsv" for split in ("train", "val", "test")]
    assert str(folder) in plan.origin and plan.facts == {"vocabulary": WORDS}
    plan = listops.plan(Request(data_dir=tmp_path, seed=3, generate=True))
    assert not plan.sources and plan.origin.endswith("from seed 3")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ends_of_lines(tmp_path, monkeypatch, end):
    put(tmp_path)
    whole = read(tmp_path)
    monkeypatch.setattr(listops, "TREES_PER_PART", 7)
    put(tmp_path / "other", SAMPLE.replace("\n", end).removesuffix(end))  # the last line may lack its end
    assert_equal(read(tmp_path / "other"), whole)


def tree(arguments):
    return f"{'( ' * (len(arguments) + 1)}[MAX {''.join(f'{a} ) ' for a in arguments)}] )"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("( ( ( [MAX 3 ) [FOO ) ] )\t4", r"line 3: unknown word '\[FOO'; the file is damaged"),
        ("( ( ( [MAX 3 ) 14 ) ] )\t4", "line 3: unknown word '14'"),
        ("( ( ( [MAX 3 ) é ) ] )\t4", "line 3: unknown word 'é'"),
        (f"{tree([3, 4])}\tfour", "line 3: the target must be a digit from 0 to 9, not 'four'"),
        (f"{tree([3, 4])}\t10", "line 3: the target must be a digit from 0 to 9, not '10'"),
        (f"{tree([3, 4])}\t-1", "line 3: the target must be a digit from 0 to 9, not '-1'"),
        (f"{tree([3, 4])}\t4.0", r"line 3: the target must be a digit from 0 to 9, not '4\.0'"),
        (tree([3, 4]), r"line 3: 1 columns instead of Source and Target; the file is"),
        (f"{tree([3, 4])}\t4\t4", "line 3: 3 columns instead of Source and Target"),
        ("\n", "line 3: 1 columns instead of Source and Target"),
        (f"{tree([3, 4])}\t", r"line 3: the target must be a digit from 0 to 9, not ''; the file is damaged"),
        ("( ( ( [MAX 3 ) 4 )", "line 3: 1 columns instead of Source and Target"),
        ("( ( ( [MAX 3 ) 4 )\t4", r"line 3: brackets are missing, or there are too many; the file is damaged"),
        (f"{tree([3, 4])} ] )\t4", "line 3: brackets are missing, or there are too many"),
        (f"{tree([3, 4])} 5\t4", "line 3: brackets are missing, or there are too many"),
        ("\t4", "line 3: brackets are missing, or there are too many"),
        (f"{tree([1] * 2046)}\t1", "line 3: 2,048 tokens, more than 2,047"),
    ],
)
def test_bad_lines_are_named(tmp_path, lines, message):
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
        (f"{tree([1, 2])}\t2\n", r"line 1: the header must be b'Source\\tTarget', not b'\( \( \( \[MAX"),
        ("Target\tSource\n", r"line 1: the header must be .* not b'Target\\tSource"),
        ("", "line 1: the header must be .* not b''"),
    ],
)
def test_bad_headers_are_named(tmp_path, text, message):
    folder = put(tmp_path, val=text)
    with pytest.raises(DataError, match=rf"^{folder}/basic_val\.tsv[,:] ?{message}"):
        prepare("listops", tmp_path)


def test_missing_files_are_named(tmp_path):
    folder = put(tmp_path)
    (folder / "basic_val.tsv").unlink()
    message = rf"^listops: {folder} lacks basic_val\.tsv; get them from https://.*long-range-arena.* or add --generate"
    with pytest.raises(DataError, match=message):
        read(tmp_path)


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
    write_tsv(path, join(listops.plan(Request(data_dir=tmp_path)).parts["val"]))
    assert path.read_text() == SAMPLE


def test_trees_depend_on_seed_split_and_place_alone():
    whole = make(train=1150, test=100)
    assert [len(split.labels) for split in whole.values()] == [1150, 100]
    again = make(train=1150)["train"]
    assert_equal(again, whole["train"])
    fewer = make(train=60)["train"]
    assert_equal(fewer, [x[:60] for x in whole["train"]])
    plan = listops.plan(Request(data_dir=pathlib.Path("nowhere"), generate=True, sizes={"train": 5000}))
    assert_equal(
        [x[:150] for x in join(itertools.islice(plan.parts["train"], 1, 2))], [x[1000:] for x in whole["train"]]
    )
    several = [whole["train"], whole["test"], make(seed=1, train=100)["train"]]
    rows = np.concatenate([arrays.inputs for arrays in several])
    assert len(np.unique(rows, axis=0)) == len(rows) == 1350


def test_trees_are_the_same_everywhere():
    """Recorded."""
    made = make(train=20)["train"]
    assert hashlib.sha256(made.inputs.tobytes() + made.labels.tobytes()).hexdigest()[:16] == "eeb68d47ac53ef2c"


@pytest.mark.parametrize("official", [True, False])
def test_from_files_or_generator_to_the_task(tmp_path, official):
    if official:
        put(tmp_path)
    sizes = {"train": 12, "val": 3, "test": 3}
    prepare("listops", tmp_path, **({} if official else {"generate": True, "sizes": sizes}))
    task = listops.load(store.read(listops.FORMAT, tmp_path))
    expected = read(tmp_path) if official else make(**sizes)["train"]
    train = task.splits["train"]
    assert_equal((train.inputs, train.labels, train.lengths), expected)
    assert task.example_shape() == (2048,) and task.num_tokens == 20 and task.num_classes == 10
