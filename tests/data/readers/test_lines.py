from s5jax.data.readers import lines


def test_each_line_is_in_one_range(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n\nfour\nlast")
    whole = [(0, b"one\n"), (4, b"two\n"), (8, b"\n"), (9, b"four\n"), (14, b"last")]
    for size in range(1, 20):
        assert [x for some in lines.ranges(file, 0, size) for x in lines.lines(file, *some)] == whole
        assert [x for some in lines.ranges(file, 4, size) for x in lines.lines(file, *some)] == whole[1:]
    assert [lines.line_number(file, position) for position, _ in whole] == [1, 2, 3, 4, 5]
