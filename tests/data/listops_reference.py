"""ListOps in the words of the official files, computed independently."""

import csv
import pathlib
import statistics

from s5jax.data.generators import trees

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
SAMPLE = (REFERENCE / "listops_sample.tsv").read_text()


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
