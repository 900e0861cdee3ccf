import dataclasses

from s5jax.data.readers import characters
from s5jax.data.tasks import text


def test_vocabulary_is_ordered_by_frequency_then_code_point():
    texts = ["bbbcca", "ad" * 2, "zzzz" * 9]
    format = dataclasses.replace(text.FORMAT, length=7)
    assert characters.vocabulary(texts, format) == "zabcd"
    assert characters.vocabulary(texts, format, min_frequency=3) == "zab"
    assert characters.vocabulary([""] * 1500 + ["abca"], format) == "abc"


def test_encoding():
    tokens, lengths = characters.encode(["ab?", "", "bbbbb"], "ba", 5)
    assert tokens.tolist() == [[4, 3, 1, 2, 0], [2, 0, 0, 0, 0], [3, 3, 3, 3, 2]] and lengths.tolist() == [4, 1, 5]
