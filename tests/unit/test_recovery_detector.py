"""Who counts as dead, in virtual time: signs that come singly, together, late and from an observer that was away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from coordination.ids import WorkerId
from coordination.recovery.detector import GRACE, MANY_GRACE, SILENT_AFTER, Detector

TICK = 0.1
FLEET = tuple(WorkerId(f"w{i}") for i in range(5))


class Watch:
    """A detector, and the fleet as it would see it: `beats` are the times of the last heartbeats."""

    def __init__(self, workers: Collection[WorkerId] = FLEET) -> None:
        self.now = 100.0
        self.detector = Detector()
        self.beats = dict.fromkeys(workers, self.now)
        self.listening = set(workers)
        self.settled = True

    def look(self) -> frozenset[WorkerId]:
        self.now += TICK
        silent: Mapping[WorkerId, timedelta] = {w: timedelta(seconds=self.now - at) for w, at in self.beats.items()}
        return self.detector.observe(self.now, listening=self.listening, silent=silent, settled=self.settled)

    def look_for(self, seconds: float, *, alive: Collection[WorkerId]) -> frozenset[WorkerId]:
        """All suspects of so many seconds in which the living workers beat on."""
        suspects: set[WorkerId] = set()
        for _ in range(round(seconds / TICK)):
            for worker in alive:
                self.beats[worker] = self.now
            suspects |= self.look()
        return frozenset(suspects)


def test_a_worker_that_neither_listens_nor_beats_is_dead_after_the_grace() -> None:
    watch = Watch()
    watch.listening.discard(FLEET[0])

    assert watch.look_for(GRACE - 0.01, alive=FLEET[1:]) == frozenset()
    assert watch.look_for(3 * TICK, alive=FLEET[1:]) == {FLEET[0]}


def test_a_worker_that_lost_its_subscription_and_beats_is_alive() -> None:
    watch = Watch()
    watch.listening.discard(FLEET[0])

    assert watch.look_for(5.0, alive=FLEET) == frozenset()


def test_a_beat_from_before_the_subscription_went_missing_proves_nothing() -> None:
    watch = Watch()
    watch.look()
    watch.beats[FLEET[0]] = watch.now
    watch.listening.discard(FLEET[0])

    assert watch.look_for(1.0, alive=FLEET[1:]) == {FLEET[0]}


def test_a_worker_that_subscribes_again_within_the_grace_is_forgiven() -> None:
    watch = Watch()
    watch.listening.discard(FLEET[0])
    watch.look()
    watch.listening.add(FLEET[0])
    watch.look()
    watch.listening.discard(FLEET[0])

    assert watch.look() == frozenset(), "the grace begins anew"


def test_all_that_vanish_in_one_moment_get_longer_for_that_is_redis() -> None:
    watch = Watch()
    watch.listening.clear()

    assert watch.look_for(MANY_GRACE - TICK, alive=()) == frozenset()
    watch.listening.update(FLEET)
    assert watch.look_for(3.0, alive=FLEET) == frozenset()


def test_many_that_stay_away_are_dead_all_the_same() -> None:
    watch = Watch()
    watch.listening = set(FLEET[3:])

    assert watch.look_for(MANY_GRACE + 3 * TICK, alive=FLEET[3:]) == set(FLEET[:3])


def test_one_of_two_workers_that_vanishes_alone_is_found_as_fast_as_ever() -> None:
    watch = Watch(FLEET[:2])
    watch.listening.discard(FLEET[0])

    assert watch.look_for(GRACE + 2 * TICK, alive=FLEET[1:2]) == {FLEET[0]}


def test_an_observer_that_was_cut_off_itself_suspects_nobody_until_it_has_settled() -> None:
    watch = Watch()
    watch.listening.clear()
    watch.settled = False
    assert watch.look_for(3.0, alive=()) == frozenset()

    watch.settled = True
    for worker in FLEET:
        watch.beats[worker] = watch.now
    watch.listening.update(FLEET)
    assert watch.look_for(1.0, alive=FLEET) == frozenset()


def test_a_host_that_vanished_without_closing_its_sockets_is_found_by_its_heartbeat() -> None:
    watch = Watch()

    assert watch.look_for(SILENT_AFTER - 2 * TICK, alive=FLEET[1:]) == frozenset()
    assert watch.look_for(5 * TICK, alive=FLEET[1:]) == {FLEET[0]}


def test_a_worker_that_signed_off_is_not_missed() -> None:
    watch = Watch()
    watch.listening.discard(FLEET[0])
    watch.look()
    del watch.beats[FLEET[0]]

    assert watch.look_for(3.0, alive=FLEET[1:]) == frozenset()
