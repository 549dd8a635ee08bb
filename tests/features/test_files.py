import threading

import pytest

from features.files import alone, changing, fingerprint, sha256, write_by_content, write_json, write_whole


def _fill_half_and_fail(beside):
    beside.write_text("half a li")
    raise OSError("disk full")


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_whole(path, lambda beside: beside.write_text("old"))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, _fill_half_and_fail)
    assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [("file.txt", "old")]


def test_a_killed_writer_leaves_no_litter_either(tmp_path):
    def killed(beside):
        beside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_by_content(tmp_path, "table", ".parquet", killed)
    assert list(tmp_path.iterdir()) == []


def test_no_reader_sees_a_file_before_it_is_whole(tmp_path):
    seen = []

    def write(beside):
        beside.write_text("new")
        seen.append((path.read_text(), path.exists()))

    path = tmp_path / "file.txt"
    path.write_text("old")
    write_whole(path, write)
    assert (seen, path.read_text()) == ([("old", True)], "new")


def test_content_names_the_file_so_that_equal_content_is_one_file(tmp_path):
    names = [write_by_content(tmp_path, "t", ".txt", lambda p, text=text: p.write_text(text))[0] for text in "aab"]
    assert names[0] == names[1] != names[2]
    assert sorted(tmp_path.iterdir()) == sorted({*names})
    assert names[0].name == f"t-{sha256(names[0])[:16]}.txt"


def test_json_that_no_other_reader_takes_is_refused_and_the_old_file_stands(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"value": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert path.read_bytes() == before


def test_a_fingerprint_sees_bytes_and_not_names(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    assert fingerprint(one) == fingerprint(other)
    other.write_bytes(b"sama")
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_who_finds_another_in_a_folder_is_told_once_and_waits(tmp_path):
    told, order = [], []

    def second():
        with alone(tmp_path, waiting=lambda: (told.append(1), came.set())):
            order.append("second")

    came, thread = threading.Event(), threading.Thread(target=second)
    with alone(tmp_path, waiting=lambda: told.append(0)):
        thread.start()
        assert came.wait(30)
        order.append("first")
    thread.join(30)
    assert (told, order) == ([1], ["first", "second"])


def test_a_file_is_changed_by_one_at_a_time(tmp_path):
    path = tmp_path / "deep" / "count"

    def count():
        for _ in range(50):
            with changing(path):
                path.write_text(str(int(path.read_text()) + 1) if path.exists() else "1")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert path.read_text() == "200"
