"""What a board runs: the broker, with the configuration in config.json.

On a desktop: micropython firmware/main.py [CONFIG.json]
"""

import gc
import sys

# Collect often while importing: garbage in between would leave no memory in one piece.
gc.threshold(16384)

from amqp_lite import Node  # noqa: E402

with open(sys.argv[1] if len(sys.argv) > 1 else "config.json") as file:
    Node(file.read()).run()
