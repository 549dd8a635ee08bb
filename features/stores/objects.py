"""Object storage, the door to fsspec: files that several machines share, each there whole or not at all.

What comes from there are bytes that anybody may have written, so that who reads them checks them. Who may write is for
the environment to say, as each storage's own library reads it: no secret stands in an address.
"""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from features.engine import EMBEDDED, masked
from features.errors import ContractError, CorruptError, HoldfastError, NotFoundError, UnavailableError
from features.home import Home
from features.programme import read_programme

CONNECT_SECONDS: Final = 3
READ_SECONDS: Final = 10
PROBE: Final = "probes"  # a folder of what is written to see whether it can be
# botocore asks five times and s3fs five times each of those: who serves has a copy, who trains is told at once
_FRUGAL: Final = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"max_attempts": 0}}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {"s3": {"config_kwargs": _FRUGAL}}


class Objects:
    """Read and write below one address.

    Raises
    ------
    ContractError
        If fsspec has no package for it, or that is not installed.
    UnavailableError
        If the storage does not answer as it should; from every method.
    """

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self.address, self.place = address.rstrip("/"), masked(address.rstrip("/"))
        scheme = address.partition("://")[0]
        try:
            options = _OPTIONS.get(scheme, {})
            self._files, self._root = url_to_fs(self.address, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise ContractError(
                f"objects at {self.place}: {error}; s3:// comes with `pip install 'holdfast[s3]'`, others with a "
                f"package of fsspec's"
            ) from error
        if scheme == "s3":
            self._files.retries = 1

    def find(self, name: str, *, most: int) -> bytes | None:
        """Read an object of at most so many bytes; None where there is none.

        Raises
        ------
        CorruptError
            If it is larger.
        """
        with self._asked():
            try:
                body: bytes = self._files.cat_file(self._path(name), start=0, end=most + 1)
            except FileNotFoundError:
                return None
        if len(body) > most:
            raise CorruptError(f"{self.place}/{name} has more than {most:,} bytes, at most so many were wanted")
        return body

    def read(self, name: str, *, most: int) -> bytes:
        """Read an object that has to be there.

        Raises
        ------
        NotFoundError
            If it is not.
        CorruptError
            If it is larger.
        """
        if (body := self.find(name, most=most)) is None:
            raise NotFoundError(f"{self.place}/{name} is not there")
        return body

    def write(self, name: str, body: bytes) -> None:
        """Write an object, in place of another."""
        with self._asked():
            self._files.pipe_file(self._path(name), body)

    def put(self, name: str, path: Path) -> None:
        """Write an object from a file of any size, in place of another: it is seen once it is whole."""
        with self._asked():
            self._files.put_file(str(path), self._path(name))

    def create(self, name: str, body: bytes) -> bool:
        """Write an object where there is none yet; False if there is: of several at once exactly one succeeds."""
        with self._asked():
            try:
                self._files.pipe_file(self._path(name), body, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Delete an object; that there is none is no matter."""
        with self._asked(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def names(self, folder: str = "") -> list[str]:
        """Name what stands at any depth below a folder."""
        with self._asked():
            try:
                found = self._files.find(self._path(folder) if folder else self._root)
            except FileNotFoundError:
                return []
        return sorted(path.removeprefix(f"{self._root}/") for path in found)

    def probe(self) -> None:
        """Write an object, read it back and delete it.

        Raises
        ------
        ContractError
            If what stands there can be written over by who must not: two promotions at once would both succeed.
        """
        name = f"{PROBE}/{uuid.uuid4().hex}"
        body = name.encode()
        try:
            if not self.create(name, body) or self.read(name, most=len(body)) != body:
                raise ContractError(f"objects at {self.place} does not give back what was written")
            if self.create(name, b"other"):
                raise ContractError(f"objects at {self.place} writes over what stands there; wanted S3, GCS or Azure")
        finally:
            with contextlib.suppress(UnavailableError):
                self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except HoldfastError:
            raise
        except Exception as error:  # every storage has errors of its own, and their words may hold what is secret
            raise UnavailableError(
                f"objects at {self.place} does not answer as it should ({type(error).__name__}); `holdfast doctor` "
                f"says what is wrong"
            ) from error


def objects_of(home: Home) -> Objects | None:
    """Open the object storage that a home's settings name, if they do."""
    address = read_programme(home.settings).engine.objects
    return None if address in EMBEDDED else Objects(address)
