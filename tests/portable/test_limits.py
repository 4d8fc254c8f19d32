"""The numbers of a profile: complete, possible, and what they cost."""

import gc

from amqp_lite import limits
