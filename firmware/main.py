"""What a board runs: the broker with its Wi-Fi, clock and sensors, as config.json says.

On a desktop: micropython firmware/main.py [CONFIG.json]
"""

import gc
import sys
import time

gc.threshold(16384)  # collect often: garbage in between would leave no memory in one piece

from board import here, starts  # noqa: E402

GOOD_MS = 60000  # a start was good when it served so long
TURN_MS = 100  # what the Wi-Fi and the console have to wait at most

board = here()
retained = board.retained()


def prepare():
    """Station, clock, seconds for the watchdog, node: the configuration itself is gone then."""
    from board.settings import complete, read

    config = read(sys.argv[1:] or ("config.json", "config.old.json"))
    if config is None:
        print("nothing to start without a configuration: `amqp-lite deploy` brings one")
        return None
    board.place()  # before others import what it makes smaller
    from amqp_lite import Node
    from amqp_lite.log import log

    log.sink = retained.write
    config, profile = complete(config, board)
    station = board.wifi(config["wifi"], config["device"])
    return station, board.clock(config["clock"]), config["watchdog"], Node(config, profile)


def serve(station, clock, seconds, node):
    from board.console import Console
    from board.sensors import Sensors

    watchdog = board.watchdog(seconds)
    try:
        sensors = Sensors(node, clock=clock)
        sensors.setup(board)
        about = {"name": board.NAME, "id": board.unique_id(), "reset": board.reset_cause()}
        about.update(starts=retained.starts, before=retained.previous, sensors=sensors.status)
        about.update(wifi=station and station.status, clock=clock.status)
        console = Console(node, about)
        began = time.ticks_ms()
        wait = 0
        while True:
            node.step(wait)
            now = time.ticks_ms()
            if station and station.step(now):
                board.led(station.is_up)
            clock.step(now, not station or station.is_up)
            console.step()
            wait = min(sensors.step(now), TURN_MS)
            if node.is_well():
                watchdog.feed()
                if retained.starts and time.ticks_diff(now, began) > GOOD_MS:
                    retained.good()
    finally:
        node.close()
        watchdog.off()


try:
    parts = starts.may_start(retained) and prepare()
    if parts:
        serve(*parts)
except KeyboardInterrupt:
    retained.good()  # somebody is here, and wants it so
    print("ended")
except Exception as error:
    starts.failed(error, board, retained)
