"""Whether a node is well: what a board feeds its watchdog by."""

from amqp_lite import Node
from amqp_lite.compat import MICROPYTHON, ticks_add
from test_device import Folder

LIMITS = {
    "connections": 2, "unauthenticated": 1, "channels": 2, "queues": 4, "bindings": 8,
    "exchanges": 12, "consumers": 4, "messages": 8, "deliveries": 16, "blocks": 64,
    "block_size": 128, "message_max": 2048, "receive_buffer": 1024, "send_buffer": 2048,
    "frame_max": 4096, "routes": 4, "log_lines": 4,
}  # fmt: skip


def new_node(store):
    return Node(
        {
            "listeners": [],
            "log_level": "error",
            "store": store,
            "queues": [{"name": "all"}],
            "limits": LIMITS,
        }
    )


def in_segments(folder, **more):
    """Commits are gathered there, so that one can wait."""
    node = new_node(dict({"kind": "segments", "path": folder + "/ring", "size": 131072}, **more))
    node.step(0)
    node.publish("", "all", "durable", {"delivery_mode": 2})
    return node


def test_without_a_store_it_is_well():
    node = new_node(None)
    node.step(0)
    assert node.is_well()
    node.close()


def test_a_commit_may_wait_for_a_while():
    with Folder() as folder:
        node = in_segments(folder)
        node.step(0)
        assert not node.broker.committed and node.is_well()
        began = node.broker.now
        node.broker.now = ticks_add(began, 5000)
        assert node.is_well()
        node.broker.now = ticks_add(began, 5200)
        assert not node.is_well()
        while not node.broker.committed:
            node.step(20)
        assert node.is_well()
        node.close()


def test_a_commit_may_wait_as_long_as_it_shall_gather():
    with Folder() as folder:
        node = in_segments(folder, commit_ms=60000)
        node.step(0)
        broker = node.broker
        began = broker.now
        for after, commits, is_well in ((59000, False, True), (60001, True, True)):
            broker.now = ticks_add(began, after)
            assert node.is_well() == is_well
            assert broker.store.commit() == commits
        node.close()


def test_marks_wait_as_long_as_commits():
    for commit_ms, waits_ms in ((0, 1000), (100, 1000), (5000, 5000)):
        with Folder() as folder:
            node = in_segments(folder, commit_ms=commit_ms)
            store = node.broker.store
            store.commit_now()
            node.subscribe("all", lambda message: None)
            node.step(0)
            began = node.broker.now
            syncs = []
            store.ring.sync = lambda syncs=syncs: syncs.append(1)
            for after, count in ((waits_ms - 100, 0), (waits_ms + 1, 1)):
                node.broker.now = ticks_add(began, after)
                store.tick()
                assert len(syncs) == count, (commit_ms, after)
            del store.ring.sync
            node.close()


def test_syncs_of_segments_are_counted():
    with Folder() as folder:
        node = in_segments(folder)
        before = node.status()["store"]["syncs"]
        node.broker.store.commit_now()
        assert node.status()["store"]["syncs"] == before + 1
        node.publish("", "all", "transient")
        node.broker.store.commit_now()
        assert node.status()["store"]["syncs"] == before + 1
        node.close()


def test_how_long_it_runs_beyond_the_end_of_ticks():
    node = new_node(None)
    assert node.status()["uptime_ms"] == 0
    broker = node.broker
    broker.tick()
    days = 0
    for _ in range(30):
        days += 1
        broker.now = ticks_add(broker.now, 86400000)
        broker.tick()
        broker.now = ticks_add(broker.now, 500)
        assert node.status()["uptime_ms"] == days * 86400500
    node.close()


def test_a_store_that_failed_is_not_well():
    with Folder() as folder:
        node = in_segments(folder)
        node.broker.store.fail()
        assert not node.is_well()
        node.close()


def test_the_question_does_not_allocate():
    if not MICROPYTHON:
        return
    import micropython

    with Folder() as folder:
        node = in_segments(folder)
        node.step(0)
        micropython.heap_lock()
        try:
            well = node.is_well()
        finally:
            micropython.heap_unlock()
        assert well and not node.broker.committed
        node.close()
