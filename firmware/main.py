"""What a board runs: the broker, with the configuration in config.json.

On a desktop: micropython firmware/main.py [CONFIG.json]
"""

import sys

from amqp_lite import Node

with open(sys.argv[1] if len(sys.argv) > 1 else "config.json") as file:
    Node(file.read()).run()
