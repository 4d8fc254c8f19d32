"""The protocol-neutral model: exchanges, bindings, queues, consumers and the message pool."""
