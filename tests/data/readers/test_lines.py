import pytest

from s5jax.data.readers import lines
from s5jax.data.task import DataError


def test_each_line_is_in_one_range(tmp_path, monkeypatch):
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n\nfour\nlast")
    whole = [(0, b"one\n"), (4, b"two\n"), (8, b"\n"), (9, b"four\n"), (14, b"last")]
    for size in range(1, 20):
        monkeypatch.setattr(lines, "RANGE", size)
        assert [x for some in lines.ranges(file) for x in lines.lines(file, *some)] == whole
        assert [x for some in lines.ranges(file, 4) for x in lines.lines(file, *some)] == whole[1:]


@pytest.mark.parametrize("begin", [0, 2, 8])
def test_a_line_that_is_not_understood_is_named(tmp_path, begin):
    (tmp_path / "lines").write_bytes(b"1\n2\n3\n4\nx\n6")
    found = lines.parsed(tmp_path / "lines", begin, 11, int)
    with pytest.raises(
        DataError, match=r"lines, line 5: invalid literal .* b'x\\n'; the file is damaged or cut off, get"
    ):
        list(found)
