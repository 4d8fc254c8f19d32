"""Runs before main.py, and also when a tool restarts the board and main.py stays away."""

import gc

# main.py is compiled here: what the compiler throws away must not break memory into small pieces.
gc.threshold(16384)
