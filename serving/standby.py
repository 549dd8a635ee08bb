"""The standby: what the release last said of every member, for when it can't be asked, or can't be told of a member.

Three rungs: a member's own scores by the snapshot that is online; the mean scores of those in the member's segment and
life cycle stage; and nothing, which leaves the policy's fallback. The scores lie beside each other sorted by a hash of
the ids, in files that are mapped into memory and read without parsing; they are made anew, beside the service, when
release or snapshot change. Who opted out is in them as that alone.
"""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.as_of.plan import read_plan
from features.errors import HoldfastError, NotFoundError
from features.files import write_json, write_whole
from features.home import Home
from serving.decide import LAST_SCORE, NOTHING, SEGMENT_DEFAULT, Decider, StandIn
from serving.record import File
from training.artifacts import Release
from training.constraints import CONSENT, OPTED_OUT, STAGE

Floats = NDArray[np.float64]

WORDS: Final = ("segment", STAGE, CONSENT)
_PART: Final = 8_192  # members scored at once
_FILE: Final = "standby.json"

logger: Final = logging.getLogger("holdfast")


@dataclass(frozen=True)
class Standby:
    """Hold the last scores of members under one release."""

    release_id: str
    as_of: datetime  # of the snapshot they were scored by
    keys: NDArray[np.uint64]  # (n_members,) hashes of ids, ascending
    scores: Floats  # (n_members, 2 + 5 n_offers), NaN of who opted out
    codes: NDArray[np.int16]  # (n_members, 3) of WORDS: places in `words`
    words: tuple[str | None, ...]
    means: dict[tuple[str | None, str | None], Floats]  # (segment, stage) -> (2 + 5 n_offers,)

    def fill(self, file: File) -> File:
        """Stand in where a member can't be scored."""
        want = np.flatnonzero(file.members.fallback)
        keys = hashes([file.member_ids[place] for place in want.tolist()])
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        segments, stages, times = [*file.segment], [*file.lifecycle_stage], [*file.event_timestamp]
        facts = {name: column.copy() for name, column in file.members.facts.items()}
        source = np.full(len(file.member_ids), NOTHING, dtype=np.int8)
        scores = np.full((len(source), self.scores.shape[1]), np.nan)
        for place, row in zip(want.tolist(), np.where(self.keys[at] == keys, at, -1).tolist(), strict=True):
            if row >= 0:
                segment, stage, consent = (self.words[code] for code in self.codes[row].tolist())
                segments[place], stages[place], times[place] = segment, stage, self.as_of
                facts[STAGE][place], facts[CONSENT][place] = stage, consent
                source[place], scores[place] = LAST_SCORE, self.scores[row]
            elif (mean := self.means.get((segments[place], stages[place]))) is not None:
                source[place], scores[place] = SEGMENT_DEFAULT, mean
        members = replace(file.members, facts=facts, stand_in=StandIn(source, scores))
        return replace(
            file,
            members=members,
            segment=tuple(segments),
            lifecycle_stage=tuple(stages),
            event_timestamp=tuple(times),
        )


class Standbys:
    """Keep the standby of the release that serves up to date, on a thread of its own."""

    def __init__(self, home: Home) -> None:
        self._home, self._making = home, threading.Lock()
        self._standby: Standby | None = None
        self._stamp: tuple[str, float] = ("", 0.0)

    def fill(self, decider: Decider, file: File) -> File:
        """Stand in for members who can't be scored, as far as anything is known of them."""
        standby = self._standby
        if standby is None or standby.release_id != decider.release.release_id:
            return file
        return standby.fill(file)

    def follow(self, release: Release) -> None:
        """Make the standby anew if release or snapshot are others; returns at once."""
        stamp = (release.release_id, self._changed())
        if stamp != self._stamp and self._making.acquire(blocking=False):
            self._stamp = stamp
            threading.Thread(target=self._make_apart, args=(release,), name="standby", daemon=True).start()

    def make(self, release: Release) -> None:
        """Make the standby anew, now."""
        try:
            self._standby = open_standby(self._home, release)
        except NotFoundError:  # nothing is online yet
            self._standby = None
        except (HoldfastError, OSError) as error:
            logger.warning("no standby for when features fail: %s", type(error).__name__)

    def _make_apart(self, release: Release) -> None:
        try:
            self.make(release)
        finally:
            self._making.release()

    def _changed(self) -> float:
        plan = self._home.live / "plan.json"
        return plan.stat().st_mtime if plan.exists() else 0.0


def open_standby(home: Home, release: Release) -> Standby:
    """Read the standby of a release and of the snapshot that is online; write it first where there is none.

    Raises
    ------
    NotFoundError
        If nothing was materialised.
    """
    as_of = read_plan(home).as_of
    root = home.live / f"standby-{release.release_id}-{as_of:%Y%m%dT%H%M%SZ}"
    if not (root / _FILE).exists():
        _write(root, home.snapshot(as_of), release)
        for old in set(home.live.glob("standby-*")) - {root}:
            shutil.rmtree(old)
    told: dict[str, Any] = json.loads((root / _FILE).read_bytes())
    keys, scores, codes = (
        np.load(root / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("keys", "scores", "codes")
    )
    means = {(segment, stage): np.array(mean) for segment, stage, mean in told["means"]}
    return Standby(release.release_id, as_of, keys, scores, codes, tuple(told["words"]), means)


def hashes(member_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Give each id its first 8 bytes of BLAKE2b, `(n_members,)`."""
    digests = b"".join(
        hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest() for name in member_ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _write(root: Path, snapshot: Path, release: Release) -> None:
    keys, scores, codes = list[Any](), list[Floats](), list[Any]()
    places: dict[str | None, int] = {}
    with pq.ParquetFile(snapshot) as file:
        for part in file.iter_batches(_PART, columns=["member_id", *release.feature_names, *WORDS], use_threads=False):
            X = np.column_stack([part.column(name).to_numpy(zero_copy_only=False) for name in release.feature_names])
            said = [part.column(name).to_pylist() for name in WORDS]
            row = release.score(np.where(np.isinf(X), np.nan, X).astype(np.float32)).rows
            row[np.array([word == OPTED_OUT for word in said[-1]])] = np.nan
            keys.append(hashes(part.column("member_id").to_pylist()))
            scores.append(row)
            codes.append([[places.setdefault(word, len(places)) for word in column] for column in said])
    order = np.argsort(key := np.concatenate(keys))
    matrix, coded = np.concatenate(scores)[order], np.hstack(codes).T[order].astype(np.int16)
    root.mkdir(parents=True, exist_ok=True)
    for name, array in {"keys": key[order], "scores": matrix, "codes": coded}.items():
        write_whole(root / f"{name}.npy", partial(_save, array=array))
    words = [*places]
    told = {"words": words, "means": _means(matrix, coded, words)}
    write_json(root / _FILE, told)  # last: a folder without it is no standby


def _means(scores: Floats, codes: NDArray[np.int16], words: Sequence[str | None]) -> list[list[Any]]:
    """Average the scores of each segment and life cycle stage, of those who did not opt out."""
    fine = np.isfinite(scores).all(axis=1)
    pairs, place = np.unique(codes[fine, :2], axis=0, return_inverse=True)
    sums = np.zeros((len(pairs), scores.shape[1]))
    np.add.at(sums, place.ravel(), scores[fine])
    means = sums / np.bincount(place.ravel(), minlength=len(pairs))[:, None]
    return [[words[pair[0]], words[pair[1]], mean.tolist()] for pair, mean in zip(pairs.tolist(), means, strict=True)]


def _save(path: Path, *, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
