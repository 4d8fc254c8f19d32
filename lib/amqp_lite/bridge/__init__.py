"""The way upstream: what local queues hold is forwarded, what an upstream has for us comes in."""
