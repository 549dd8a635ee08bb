import numpy as np
import pytest

from training.tuning import START, tune


class StoppedError(Exception):
    """What a person does with Ctrl-C, or a machine with less warning."""


def bowl(parameters):
    """A loss whose least is known: 0.1 at a rate of 0.1 and 200 rounds; three folds that agree."""
    loss = 0.1 + (np.log(parameters["learning_rate"] / 0.1)) ** 2 + ((parameters["rounds"] - 200) / 200) ** 2
    yield from (loss, loss, loss)


class Watched:
    """Count calls of a loss, and folds; be cut off at a call."""

    def __init__(self, *, until=10**9, losses=bowl):
        self.calls, self.folds, self.until, self.losses = [], 0, until, losses

    def __call__(self, parameters):
        self.calls.append(parameters)
        for loss in self.losses(parameters):
            if len(self.calls) >= self.until:
                raise StoppedError
            self.folds += 1
            yield loss


def silent(done, of):
    """Say nothing."""


def search(losses, folder, *, trials, seed=0, progress=silent, study="s", start=None):
    return tune(
        losses,
        study=study,
        storage=folder / "studies.log",
        trials=trials,
        rng=np.random.default_rng(seed),
        progress=progress,
        start=start,
    )


def test_it_starts_from_what_is_known_to_do_well_and_does_better(tmp_path):
    losses = Watched()
    found = search(losses, tmp_path, trials=25)
    assert losses.calls[0] == START
    assert found.trials == len(losses.calls) == 25
    assert found.loss == pytest.approx(next(bowl(found.parameters)))
    assert 0.1 <= found.loss < 0.5 * next(bowl(START))
    assert found.parameters.keys() == START.keys()


def test_the_champions_parameters_are_tried_second_and_not_again_after_a_kill(tmp_path):
    champion = START | {"learning_rate": 0.1, "rounds": 200}
    first, second = Watched(until=2), Watched()
    with pytest.raises(StoppedError):
        search(first, tmp_path, trials=5, start=champion)
    assert first.calls == [START, champion]
    found = search(second, tmp_path, trials=5, start=champion)  # the trial that was cut is made up for
    assert second.calls.count(champion) == 1
    assert START not in second.calls
    assert found.loss == pytest.approx(0.1)  # the bowl's least, which a search of three draws does not find
    assert found.parameters == champion


def test_progress_counts_up_to_the_end(tmp_path):
    seen = []
    search(bowl, tmp_path, trials=3, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_killed_between_two_trials_it_goes_on_where_it_stood(tmp_path):
    def stop(done, _):
        if done == 4:
            raise StoppedError

    first, second, seen = Watched(), Watched(), []
    with pytest.raises(StoppedError):
        search(first, tmp_path, trials=9, progress=stop)
    found = search(second, tmp_path, trials=9, progress=lambda done, _: seen.append(done))
    assert first.calls[0] == START
    assert (len(first.calls), len(second.calls), found.trials) == (4, 5, 9)
    assert seen == [4, 5, 6, 7, 8, 9]
    # a search that starts its random stream again would look twice at the same places
    tried = [tuple(call.items()) for call in first.calls + second.calls]
    assert len(set(tried)) == 9


@pytest.mark.parametrize("cut", [1, 4])
def test_killed_within_a_trial_it_makes_up_for_the_one_that_was_cut(tmp_path, cut):
    first, second = Watched(until=cut), Watched()
    with pytest.raises(StoppedError):
        search(first, tmp_path, trials=6)
    found = search(second, tmp_path, trials=6)
    assert found.trials == 6
    assert len(second.calls) == 6 - (cut - 1)
    assert [START in calls for calls in (first.calls[: cut - 1], second.calls)] == [cut > 1, cut == 1]


def test_a_complete_study_is_not_run_again(tmp_path):
    found = search(bowl, tmp_path, trials=5)
    losses = Watched()
    assert search(losses, tmp_path, trials=5, seed=3) == found
    assert losses.calls == []


def test_the_same_stream_finds_the_same_and_another_study_is_its_own(tmp_path):
    found = search(bowl, tmp_path / "a", trials=12)
    assert search(bowl, tmp_path / "b", trials=12) == found
    assert search(bowl, tmp_path / "a", trials=12, study="t") == found
    assert search(bowl, tmp_path / "c", trials=12, seed=1).parameters != found.parameters


def test_a_trial_worse_than_the_median_is_stopped_after_its_first_fold(tmp_path):
    losses = Watched()
    found = search(losses, tmp_path, trials=20)
    assert found.pruned > 0
    # no fold differs from another here, so what is pruned is pruned at once
    assert losses.folds == 3 * (20 - found.pruned) + found.pruned
    assert found.loss == pytest.approx(min(next(bowl(call)) for call in losses.calls))
