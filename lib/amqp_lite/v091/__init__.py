"""The AMQP 0-9-1 engine: octets in, calls into the model, octets out. Knows no socket."""
