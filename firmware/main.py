"""What a board runs: the broker, with config.json and the board's profile.json.

On a desktop: micropython firmware/main.py [CONFIG.json]
"""

import gc
import json
import sys

# Collect often while importing: garbage in between would leave no memory in one piece.
gc.threshold(16384)

from amqp_lite import Node  # noqa: E402


def read(path):
    with open(path) as file:
        return json.load(file)


config = read(sys.argv[1] if len(sys.argv) > 1 else "config.json")
# A name stands for the profile that was put beside this file; numbers can be in the configuration.
profile = read("profile.json") if isinstance(config.get("profile"), str) else None
Node(config, profile).run()
