"""Run the tests of one module on MicroPython: micropython -X heapsize=400k run.py test_pool

pytest collects the same functions on CPython. On a board: import run; run.run("test_pool").
"""

import gc
import sys


def _fill_stack(depth):
    return depth and _fill_stack(depth - 1)


def run(name):
    """Call every test_* function of the module: how many failed."""
    gc.threshold(16384)  # else what the compiler throws away breaks the heap into small pieces
    module = __import__(name)
    tests = [key for key in sorted(dir(module)) if key.startswith("test_")]
    failed = 0
    for key in tests:
        # Pointers left on the stack would keep what the last test made: write over them.
        _fill_stack(30)
        gc.collect()
        try:
            getattr(module, key)()
        except Exception as error:
            failed += 1
            print("FAILED %s.%s" % (name, key))
            sys.print_exception(error)
    print("%s: %d tests, %d failed" % (name, len(tests), failed))
    return failed


if __name__ == "__main__":
    sys.exit(1 if run(sys.argv[1]) else 0)
