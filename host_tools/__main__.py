"""`python3 -m host_tools`: works in a fresh checkout, with nothing installed."""

import os
import sys

_LIB = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")
if os.path.isdir(os.path.join(_LIB, "amqp_lite")):
    sys.path.insert(0, _LIB)

from host_tools.main import main  # noqa: E402 (amqp_lite has to be found first)

sys.exit(main())
