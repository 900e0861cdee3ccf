from s5jax.data.readers import characters


def test_vocabulary_is_ordered_by_frequency_then_code_point():
    texts = ["bbbcca", "ad" * 2, "zzzz" * 9]
    assert characters.vocabulary(texts, 7) == ["z", "a", "b", "c", "d"]
    assert characters.vocabulary(texts, 7, min_frequency=3) == ["z", "a", "b"]
    assert characters.vocabulary([""] * 1500 + ["abca"], 10) == ["a", "b", "c"]


def test_encoding():
    tokens, lengths = characters.encode(["ab?", "", "bbbbb"], ["b", "a"], 5)
    assert tokens.tolist() == [[4, 3, 1, 2, 0], [2, 0, 0, 0, 0], [3, 3, 3, 3, 2]] and lengths.tolist() == [4, 1, 5]
