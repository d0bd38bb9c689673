"""Places on replicas: who gets which, in which order, and who is told that there will be none."""

import threading
import time

import pytest

from nad.engines.cluster.places import Places
from nad.errors import NadError


def of(**places: int) -> Places[str]:
    found: Places[str] = Places()
    for name, number in places.items():
        found.open(name, number)
    return found


def test_the_least_busy_replica_is_taken() -> None:
    places = of(a=1, b=2)
    assert [places.take()[0] for _ in range(3)] == ["b", "a", "b"]


def test_waiting_threads_are_served_in_their_order() -> None:
    places, got = of(a=1), list[int]()
    first = places.take()

    def work(i: int) -> None:
        taken = places.take()
        got.append(i)
        places.give_back(*taken)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    assert not got
    places.give_back(*first)
    for thread in threads:
        thread.join()
    assert got == [0, 1, 2, 3, 4]


def test_a_thread_that_would_wait_for_itself_is_told() -> None:
    places = of(a=1)
    taken = places.take()
    with pytest.raises(NadError, match="close one before it starts another"):
        places.take()
    places.give_back(*taken)
    places.take()


def test_a_replica_that_is_down_takes_its_places_along() -> None:
    places = of(a=1)
    taken = places.take()
    assert places.shut("a") and not places.shut("a"), "only the first to see it is told so"
    assert not places.wait(0.01)
    places.give_back(*taken)
    assert not places.wait(0.01), "what was held on it is not free now"
    threading.Timer(0.05, places.open, ("b", 1)).start()
    assert places.take()[0] == "b", "this thread holds nothing any more: it may wait"


def test_when_there_will_be_no_places_everybody_is_told() -> None:
    places = of(a=1)
    places.take()
    said: list[str] = []

    def work() -> None:
        try:
            places.take()
        except NadError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    places.fail("gone")
    for thread in threads:
        thread.join()
    assert said == ["gone"] * 3
    with pytest.raises(NadError, match="gone"):
        places.wait(1)
