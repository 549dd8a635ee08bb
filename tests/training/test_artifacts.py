import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import sha256
from training.artifacts import golden_rows, load_release, write_release
from training.calibration import IDENTITY
from training.releases.manifest import Manifest, identity, read_manifest

FILES = ("churn.json", "value.json", "uplift.json", "effects.json", "calibration.json", "golden.json")
ALL = (*FILES, "manifest.json")


def sign(root, **changes):
    """Describe a folder's files as they are now, as one who can write a release could: hashes agree."""
    read = json.loads((root / "manifest.json").read_bytes()) | changes
    for name in read["files"]:
        path = root / name
        read["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    read["release_id"] = identity(Manifest(**read))
    (root / "manifest.json").write_text(json.dumps(read))


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_release_scores_as_the_models_it_was_written_from(release, parts):
    loaded = load_release(release)
    for name, scores in asdict(parts.models.score(parts.X)).items():
        np.testing.assert_array_equal(getattr(loaded.score(parts.X), name), scores)
    assert loaded.manifest == replace(
        parts.manifest, release_id=release.name, files=json.loads((release / "manifest.json").read_text())["files"]
    )
    assert loaded.feature_names == ("recency_days", "visits_28d", "spend_28d", "weekend_share")
    assert loaded.offer_ids == ("A", "B")
    assert sorted(path.name for path in release.iterdir()) == sorted(ALL)


def test_the_same_content_has_the_same_id_and_is_written_again_to_the_byte(release, parts):
    before = {path.name: path.read_bytes() for path in release.iterdir()}
    write_release(release.parent, parts.manifest, parts.models, parts.golden)
    assert {path.name: path.read_bytes() for path in release.iterdir()} == before
    assert [path.name for path in release.parent.iterdir()] == [release.name]


def test_a_run_of_the_tracker_is_no_part_of_the_id_and_everything_else_is(release, parts, tmp_path):
    written = partial(write_release, tmp_path)
    manifest, models = parts.manifest, parts.models
    assert written(replace(manifest, runs={"churn": "r1"}), models, parts.golden).release_id == release.name
    others = [
        written(replace(manifest, experiment="randomised"), models, parts.golden),
        written(replace(manifest, offers=manifest.offers[::-1]), models, parts.golden),
        written(manifest, replace(models, calibration=IDENTITY), parts.golden),
        written(manifest, models, parts.golden[:-1]),
    ]
    assert len({release.name, *(other.release_id for other in others)}) == 5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ALL)
def test_a_flipped_bit_is_refused(release, name, seed):
    path = release / name
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng([seed, ALL.index(name)])
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="manifest" if name == "manifest.json" else name):
        load_release(release)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ALL)
def test_a_truncated_file_is_refused(release, name, share):
    path = release / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorruptError, match=name):
        load_release(release)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(release, name):
    (release / name).unlink()
    with pytest.raises(CorruptError, match=f"{name} is missing from its release; `holdfast rollback`"):
        load_release(release)


def test_a_folder_without_a_manifest_is_no_release(release):
    (release / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match=r"holds no release .*`holdfast releases`"):
        load_release(release)


@pytest.mark.parametrize(("one", "other"), list(combinations(ALL, 2)))
def test_two_files_in_each_others_place_are_refused(release, one, other):
    shutil.move(release / one, release / "aside")
    shutil.move(release / other, release / one)
    shutil.move(release / "aside", release / other)
    with pytest.raises(CorruptError):
        load_release(release)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"contact_cost": 50', '"contact_cost": 90'),
        ('"name": "recency_days"', '"name": "recency_weeks"'),
        ('"promote": false', '"promote": true'),
        ('"holdfast"', '"otherwise"'),  # the hold-out's salt
    ],
)
def test_a_manifest_that_still_reads_well_but_says_something_else_is_refused(release, old, new):
    change(release / "manifest.json", old, new)
    with pytest.raises(CorruptError, match=f"not the manifest that was released.*{release.name} was wanted"):
        read_manifest(release)


@pytest.mark.parametrize("format_", [0, 2, "1", None])
def test_an_unknown_format_is_refused(release, format_):
    sign(release, format=format_)
    with pytest.raises(CorruptError, match=f"has format {format_}, 1 was wanted; train a new release"):
        load_release(release)


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"format": 1}', "\xff", '{"format": 1, "features": [7]}'])
def test_a_manifest_that_is_something_else_is_refused(release, content):
    (release / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CorruptError, match="is not the manifest of a release"):
        load_release(release)


@pytest.mark.parametrize("name", ["churn_probability", "value", "uplift", "retention_error", "redemption"])
def test_a_changed_golden_score_is_refused_even_when_every_hash_agrees(release, name):
    golden = json.loads((release / "golden.json").read_bytes())
    scores = np.array(golden["scores"][name])
    scores[3] += 0.01 * max(1.0, np.abs(scores).max())
    golden["scores"][name] = scores.tolist()
    (release / "golden.json").write_text(json.dumps(golden))
    sign(release)
    with pytest.raises(CorruptError, match=f"scores its golden rows otherwise than when made: {name}"):
        load_release(release)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("golden.json", "{}"),
        ("golden.json", '{"rows": [], "scores": {}}'),
        ("golden.json", '{"rows": [[1, 2]], "scores": {"churn_probability": [1], "value": [1], "uplift": [[1, 1]]}}'),
        ("calibration.json", '{"kind": "beta"}'),
        ("calibration.json", "[]"),
        ("churn.json", "{}"),
        ("churn.json", "no JSON at all"),
    ],
)
def test_a_file_of_another_shape_is_refused_even_when_every_hash_agrees(release, name, content):
    (release / name).write_text(content)
    sign(release)
    with pytest.raises(CorruptError, match="does not parse"):
        load_release(release)


def test_a_file_that_is_not_listed_is_refused(release):
    read = json.loads((release / "manifest.json").read_bytes())
    sign(release, files={name: value for name, value in read["files"].items() if name != "golden.json"})
    with pytest.raises(CorruptError, match=r"does not list \['golden.json'\]"):
        load_release(release)


@pytest.mark.parametrize("field", ["features", "offers"])
def test_models_that_do_not_fit_their_manifest_are_never_written(parts, tmp_path, field):
    manifest = replace(parts.manifest, **{field: getattr(parts.manifest, field)[:-1]})
    with pytest.raises(ContractError, match="of the manifest were wanted"):
        write_release(tmp_path, manifest, parts.models, parts.golden)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_infinite_feature_is_refused(release, parts, infinite):
    X = parts.X[:3].copy()
    X[1, 2] = infinite
    loaded = load_release(release)
    with pytest.raises(ContractError, match=r"an infinite feature came, finite or missing \(NaN\) was wanted"):
        loaded.score(X)


@pytest.mark.parametrize("shape", [(5, 3), (5, 5), (0, 3), (4,), (2, 2, 4)])
def test_another_number_of_columns_is_refused(parts, shape):
    X = np.zeros(shape, dtype=np.float32)
    with pytest.raises(ContractError, match=r"came, \(n_members, 4\) was wanted"):
        parts.models.score(X)


def rows_of(X):
    return {tuple(np.nan_to_num(row, nan=-1.0).tolist()) for row in X}


def test_golden_rows_are_no_members_and_of_members_values(parts):
    assert len(parts.golden) == 64
    assert not rows_of(parts.golden) & rows_of(parts.X)
    for golden, column in zip(parts.golden.T, parts.X.T, strict=True):
        assert np.isin(np.nan_to_num(golden, nan=-1.0), np.nan_to_num(column, nan=-1.0)).all()


def test_golden_rows_are_no_members_where_values_are_few():
    # of the 27 combinations members have 26: by chance alone nearly every shuffled row would be one of theirs
    X = np.array(list(np.ndindex(3, 3, 3)), dtype=np.float32)
    X[X == 2] = np.nan
    golden = golden_rows(X[:-1], np.random.default_rng(0))
    assert rows_of(golden) == rows_of(X[-1:])
    with pytest.raises(ContractError, match="every golden row would be a member's"):
        golden_rows(X, np.random.default_rng(0))
