"""The command line of amqp_lite: `amqp-lite`, or `python3 -m host_tools` in a checkout."""
