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


def in_segments(folder):
    """Commits are gathered there, so that one can wait."""
    node = new_node({"kind": "segments", "path": folder + "/ring", "size": 131072})
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
        node.broker.now = ticks_add(began, 4900)
        assert node.is_well()
        node.broker.now = ticks_add(began, 5100)
        assert not node.is_well()
        while not node.broker.committed:
            node.step(20)
        assert node.is_well()
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
