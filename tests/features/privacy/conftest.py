"""A process that is killed before a step of its work."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


class KilledError(BaseException):
    """The process is no more: nothing that it would do from here on is done, tidying up included."""


@pytest.fixture
def killed_before(monkeypatch):
    """Do some work, and be killed before one of the steps that are named; False if there are not so many."""

    def killed(step, steps, work):
        done = [0]
        with monkeypatch.context() as patch:
            for owner, name in steps:
                patch.setattr(owner, name, stopping(getattr(owner, name), done, step))
            try:
                work()
            except KilledError:
                return True
        return False

    return killed


def stopping(work, done, step):
    def stop(*args, **kwargs):
        if done[0] >= step:
            raise KilledError
        done[0] += 1
        return work(*args, **kwargs)

    return stop


def unpacked(path):
    """Give the bytes of a file, and of one that packs them those of its values as well."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        table, plain = pq.read_table(path), pa.BufferOutputStream()
        with pa.ipc.new_stream(plain, table.schema) as stream:
            stream.write_table(table)
        content += plain.getvalue().to_pybytes()
    return content
