"""AMQP 1.0 (OASIS, ISO/IEC 19464): octets in, calls into the model, octets out."""
