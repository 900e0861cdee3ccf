"""TFDS directories: written by TensorFlow Datasets itself where it is installed, and by a stand-in otherwise."""

import io
import sys
import types

import numpy as np
import pytest
from data_helpers import contents, load, prepare
from PIL import Image

from s5jax.data import store
from s5jax.data.task import DataError
from s5jax.data.tasks import smnist, text

SIZES = {"train": 50, "test": 20}


def examples_of(name):
    """Examples of each split as TFDS returns them, in an order of its own."""
    made = {}
    for split, size in SIZES.items():
        rows = []
        for i in np.random.default_rng(0).permutation(size):
            label = int(i % (2 if "imdb" in name else 10))
            if "imdb" in name:
                rows.append({"text": f"{('bad', 'good')[label]} film {i} ☃".encode() * 9, "label": label})
            else:
                side, channels = (32, 3) if name == "cifar10" else (28, 1)
                pixels = np.random.default_rng(i).integers(0, 256, (side, side, channels), np.uint8)
                number = {"id": f"{split}_{i:05d}".encode()} if name == "cifar10" else {}
                rows.append({"image": pixels, "label": label} | number)
        made[split] = rows
    return made


def stand_in(monkeypatch, folder):
    """A module `tensorflow_datasets` with some data sets, whose folders have no data."""
    data = {}
    for name, version in (("cifar10", "3.0.2"), ("mnist", "3.0.1"), ("imdb_reviews/plain_text", "1.0.0")):
        for some in ("0.9.0", version):
            (folder / name / some).mkdir(parents=True)
            (folder / name / some / "dataset_info.json").touch()
        data[folder / name / version] = examples_of(name)

    def builder_from_directory(path):
        return types.SimpleNamespace(as_data_source=lambda split: data[path][split])

    module = types.ModuleType("tensorflow_datasets")
    module.builder_from_directory = builder_from_directory
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return {path.parent.name: splits for path, splits in data.items()}


def written_by_tfds(folder):
    """The data sets of `stand_in` as files of TensorFlow Datasets, and their examples as it returns them."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features, data = tfds.features, {}
    label = features.ClassLabel(num_classes=10)
    cifar = {"id": features.Text(), "image": features.Image(shape=(32, 32, 3)), "label": label}
    mnist = {"image": features.Image(shape=(28, 28, 1)), "label": label}
    reviews = {"text": features.Text(), "label": features.ClassLabel(names=["neg", "pos"])}

    def png(array):
        stream = io.BytesIO()
        Image.fromarray(array.squeeze()).save(stream, "png")
        return stream.getvalue()

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict(self.made_of))

        def _split_generators(self, _):
            return {split: self._generate_examples(split) for split in SIZES}

        def _generate_examples(self, split):
            for i, row in enumerate(examples_of(self.examples_name)[split]):
                yield i, row | ({"image": png(row["image"])} if "image" in row else {})

    for name, made_of in (("cifar10", cifar), ("mnist", mnist), ("imdb_reviews/plain_text", reviews)):
        folder_of, _, config = name.partition("/")
        members = {"name": folder_of, "made_of": made_of, "examples_name": name}
        if config:
            members["BUILDER_CONFIGS"] = [tfds.core.BuilderConfig(name=config)]
        builder = type(folder_of, (Base,), members, skip_registration=True)(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        data[config or name] = {split: list(builder.as_data_source(split=split)) for split in SIZES}
    return data


@pytest.fixture(params=["written by TFDS", "stand-in"])
def data(request, tmp_path, monkeypatch):
    """Examples of each data set and split in the folder `tfds`."""
    if request.param == "stand-in":
        return stand_in(monkeypatch, tmp_path / "tfds")
    return written_by_tfds(tmp_path / "tfds")


def test_cifar_has_its_official_order(tmp_path, data):
    (line, *_) = prepare("scifar", tmp_path, tfds_dir=tmp_path / "tfds")
    assert line == f"scifar: CIFAR-10 from {tmp_path}/tfds/cifar10"
    folder = tmp_path / "official/cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for split, name, size in (("train", "data_batch_{}", 10), ("test", "test_batch", 20)):
        rows = sorted(data["cifar10"][split], key=lambda row: row["id"])
        for i in range(0, len(rows), size):
            records = [bytes([row["label"]]) + row["image"].transpose(2, 0, 1).tobytes() for row in rows[i : i + size]]
            (folder / f"{name.format(i // size + 1)}.bin").write_bytes(b"".join(records))
    prepare("scifar", tmp_path / "official")
    ours, official = contents(tmp_path), contents(tmp_path / "official")
    arrays = [name for name in official if name.endswith("npy")]
    assert len(arrays) == 6 and all(ours[name] == official[name] for name in arrays)
    manifests = (store.read_manifest(folder, "scifar") for folder in (tmp_path, tmp_path / "official"))
    assert len({store.fingerprint(manifest) for manifest in manifests}) == 1
    assert "tensorflow" not in sys.modules


def test_mnist_has_the_order_of_tfds(tmp_path, data):
    prepare("smnist", tmp_path, tfds_dir=tmp_path / "tfds")
    task = load(smnist, tmp_path, smnist.Options())
    assert {n: len(s) for n, s in task.splits.items()} == {"train": 45, "val": 5, "test": 20}
    for row, pixels, label in zip(data["mnist"]["test"], *task.splits["test"].arrays.values(), strict=True):
        assert pixels.ravel().tolist() == row["image"].ravel().tolist() and label == row["label"]


def test_reviews_have_the_order_of_tfds(tmp_path, data):
    prepare("text", tmp_path, tfds_dir=tmp_path / "tfds")
    stored = store.read(text.FORMAT, tmp_path)
    characters, split = stored.facts["characters"], stored.splits["test"]
    assert "☃" in characters
    for row, tokens, label, length in zip(
        data["plain_text"]["test"], split.inputs, split.labels, split.lengths, strict=True
    ):
        words = "".join(characters[token - 3] if token > 2 else "?" for token in tokens[: length - 1])
        expected = "".join(c if c in characters else "?" for c in row["text"].decode())
        assert words == expected and label == row["label"]


def test_what_cannot_be_read(tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path)
    message = r"nowhere/mnist: not a data set of TFDS, no VERSION/dataset_info\.json; check --tfds_dir"
    with pytest.raises(DataError, match=message):
        prepare("smnist", tmp_path, tfds_dir=tmp_path / "nowhere")
    (tmp_path / "mnist/10.0.0").mkdir()
    (tmp_path / "mnist/10.0.0/dataset_info.json").touch()
    message = r"mnist/10\.0\.0: no readable split train \(.*\); tfds\.builder\('mnist', .*array_record"
    with pytest.raises(DataError, match=message):
        prepare("smnist", tmp_path, tfds_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"--tfds_dir needs TensorFlow Datasets .*; install it with `pip install tensorflow-datasets"
    with pytest.raises(DataError, match=message):
        prepare("image", tmp_path, tfds_dir=tmp_path)
