"""The shelf: releases in object storage, from which homes of other machines take their own copy.

Decisions are served from the copy alone, so that a storage that is away takes nothing from a service. What comes from
there is held against the release's id before it counts: the id vouches for the manifest, the manifest for every file.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from features.errors import CorruptError, HoldfastError, NotFoundError, UnavailableError
from features.files import alone, remove, write_folder_whole
from features.home import Home
from features.stores.objects import Objects, objects_of
from training.releases.manifest import RELEASE, Manifest, manifest_of, no_release, read_manifest
from training.releases.sealed import FILE_BYTES, MANIFEST_BYTES, check_sizes, read_bytes, read_files, vouch

SHELF: Final = "releases"
MANIFEST: Final = "manifest.json"
FILE: Final = re.compile(r"[a-z_]{1,40}\.json")  # a name, and no path


def reach(home: Home) -> None:
    """Make sure that releases can be put there.

    Raises
    ------
    UnavailableError, ContractError
        If they can't.
    """
    if objects := objects_of(home):
        objects.probe()


def put(home: Home, release_id: str) -> None:
    """Carry a release of this home to where others find it; nothing happens where there is no object storage.

    Raises
    ------
    CorruptError
        If it is not whole here.
    UnavailableError
        If the storage doesn't answer; the release stays here.
    """
    if (objects := objects_of(home)) is None:
        return
    try:
        lay(objects, home.releases / release_id)
    except UnavailableError as error:
        raise UnavailableError(
            f"release {release_id} is in this home, and not where other machines look: {error}; then `holdfast "
            f"promote {release_id}` carries it there"
        ) from error


def lay(objects: Objects, root: Path) -> None:
    """Write a release's files, in place of what is there, and its manifest last: without it they are no release."""
    manifest, body = read_manifest(root), read_bytes(root / MANIFEST, most=MANIFEST_BYTES)
    place = f"{SHELF}/{manifest.release_id}"
    for name, content in read_files(root, manifest.files, manifest.files).items():
        objects.write(f"{place}/{name}", content)
    objects.write(f"{place}/{MANIFEST}", body)


def bring(home: Home, release_id: str) -> None:
    """Copy a release into this home, where it isn't whole already; nothing happens where there is no object storage.

    Raises
    ------
    NotFoundError
        If it isn't there either, or not yet whole.
    CorruptError
        If what is there is another: nothing of it is kept.
    UnavailableError
        If the storage doesn't answer.
    """
    if (objects := objects_of(home)) is None:
        return
    if not RELEASE.fullmatch(release_id):
        raise no_release(release_id)
    if _whole(home.releases / release_id):
        return
    take(objects, home.releases / release_id)


def had(home: Home, release_id: str) -> bool:
    """Say whether a release of the past is here, once it was looked for elsewhere."""
    with suppress(HoldfastError):  # nothing serves from it
        bring(home, release_id)
    return (home.releases / release_id / MANIFEST).exists()


def take(objects: Objects, root: Path) -> None:
    """Fetch a release that isn't whole in a folder of its own; raises as `bring`."""
    with alone(root.parent):  # of several processes one fetches
        if not _whole(root):
            write_folder_whole(root, partial(_fetch, objects=objects, root=root))


def _fetch(beside: Path, *, objects: Objects, root: Path) -> None:
    place = f"{SHELF}/{root.name}"
    if (body := objects.find(f"{place}/{MANIFEST}", most=MANIFEST_BYTES)) is None:
        raise NotFoundError(f"there is no release {root.name!r}, here or in {objects.place}")
    for name, content in _files(objects, place, body, root.name).items():
        (beside / name).write_bytes(content)
    (beside / MANIFEST).write_bytes(body)
    remove(root)  # what stands there is not whole


def _files(objects: Objects, place: str, body: bytes, release_id: str) -> dict[str, bytes]:
    where = f"{objects.place}/{place}"
    described = _described(manifest_of(body, f"{where}/{MANIFEST}"), release_id, where)
    found = {}
    for name, one in described.items():
        content = objects.find(f"{place}/{name}", most=FILE_BYTES)
        if content is None:
            raise CorruptError(f"{where}/{name} is missing from its release; `holdfast rollback` goes back")
        vouch(f"{where}/{name}", content, one)
        found[name] = content
    return found


def _described(manifest: Manifest, release_id: str, where: str) -> Mapping[str, Any]:
    if manifest.release_id != release_id:
        raise CorruptError(f"{where} holds release {manifest.release_id}, not its own; `holdfast rollback` goes back")
    described: Any = manifest.files
    if not isinstance(described, dict) or not all(map(FILE.fullmatch, described)):
        raise CorruptError(f"{where} lists files that no release has; `holdfast rollback` goes back")
    check_sizes(release_id, described)
    return described


def _whole(root: Path) -> bool:
    try:
        manifest = read_manifest(root)
        read_files(root, manifest.files, manifest.files)
    except (NotFoundError, CorruptError):
        return False
    return manifest.release_id == root.name
