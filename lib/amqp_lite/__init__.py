"""amqp_lite: a memory-frugal AMQP broker for edge devices.

from amqp_lite import Node
Node().run()
"""

__version__ = "0.1.0"


def __getattr__(name):
    # Late, so that a program which needs one codec does not pay for the broker.
    if name == "Node":
        from .node import Node

        return Node
    raise AttributeError(name)
