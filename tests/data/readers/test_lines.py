import pytest

from s5jax.data.readers import lines
from s5jax.data.task import DataError


def test_lines_below_a_header(tmp_path):
    (tmp_path / "lines").write_bytes(b"header\r\n1\n2\n3")
    assert list(lines.parsed(tmp_path / "lines", int, b"header")) == [1, 2, 3]
    with pytest.raises(DataError, match=r"lines, line 1: the header must be b'other', not b'header'; get the official"):
        list(lines.parsed(tmp_path / "lines", int, b"other"))


@pytest.mark.parametrize("header", [b"", b"1"])
def test_a_line_that_is_not_understood_is_named(tmp_path, header):
    (tmp_path / "lines").write_bytes(b"1\n2\n3\n4\nx\n6")
    with pytest.raises(DataError, match=r"lines, line 5: invalid literal .* b'x\\n'; the file is damaged or cut off"):
        list(lines.parsed(tmp_path / "lines", int, header))
