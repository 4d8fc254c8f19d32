"""Functions that are called every so often, and whose answers are published.

The application registers them, in the file app.py beside main.py:

def setup(node, sensors, board):
    sensors.add(board.chip_temperature, 10, "chip.temperature")

Each answer is one persistent message, with the time when the clock is set; see add(). A function
that raises is logged and called again next time; it stops nothing else.
"""

import json

from amqp_lite.compat import print_error, ticks_add, ticks_diff
from amqp_lite.log import log

_IDLE_MS = 1000
_LONGEST_S = 86400  # ticks of a board reach six days


class _Sensor:
    def __init__(self, sample, period_ms, routing_key):
        self.sample = sample
        self.period_ms = period_ms
        self.routing_key = routing_key
        self.due = None  # ticks; None: at once
        self.sent = 0
        self.errors = 0
        self.error = ""  # what went wrong last time; empty: nothing did


class Sensors:
    """
    node      whose publish() is used
    exchange  where the messages go
    clock     has is_set and now(), for the property timestamp; None: messages have none
    """

    def __init__(self, node, exchange="telemetry", clock=None):
        self._node = node
        self._exchange = exchange
        self._clock = clock
        self._sensors = []

    def setup(self, board):
        """Let app.py register what it has; without that file there are no sensors.

        An error in it is printed and logged, and the broker runs without the rest.
        """
        try:
            import app

            app.setup(self._node, self, board)
        except Exception as error:
            if isinstance(error, ImportError) and "'app'" in str(error):
                return
            log.error("app.py: %s", _text(error))
            print_error(error, log.error)

    def add(self, sample, period_s, routing_key):
        """Call *sample*() every *period_s* seconds, from 0.01 to 86,400, and publish its answer.

        sample  returns octets, str, a number, or a dict or list that become JSON; None: nothing
                to send. While it runs the broker does nothing else: 20 ms are a good limit.

        Raises ValueError for another period.
        """
        if not 0.01 <= period_s <= _LONGEST_S:
            raise ValueError("a period is 0.01 to %d seconds, not %s" % (_LONGEST_S, period_s))
        self._sensors.append(_Sensor(sample, int(period_s * 1000), routing_key))

    def step(self, now_ms):
        """Call those which are due: milliseconds until the next one is."""
        wait = _IDLE_MS
        for sensor in self._sensors:
            left = 0 if sensor.due is None else ticks_diff(sensor.due, now_ms)
            if left <= 0:
                self._sample(sensor)
                # In step with the first call, and what was missed is not made up for.
                left = left % sensor.period_ms or sensor.period_ms
                sensor.due = ticks_add(now_ms, left)
            if left < wait:
                wait = left
        return wait

    def _sample(self, sensor):
        try:
            value = sensor.sample()
            if value is not None:
                self._publish(sensor.routing_key, value)
                sensor.sent += 1
        except Exception as error:
            sensor.errors += 1
            text = _text(error)
            if text != sensor.error:
                log.warning("sensor %s: %s", sensor.routing_key, text)
                sensor.error = text
            return
        if sensor.error:
            log.info("sensor %s: works again", sensor.routing_key)
            sensor.error = ""

    def _publish(self, routing_key, value):
        properties = {"delivery_mode": 2}
        if isinstance(value, (dict, list)):
            value = json.dumps(value)
            properties["content_type"] = "application/json"
        elif not isinstance(value, (bytes, bytearray)):
            value = str(value)
            properties["content_type"] = "text/plain"
        if self._clock is not None and self._clock.is_set:
            properties["timestamp"] = self._clock.now()
        self._node.publish(self._exchange, routing_key, value, properties)

    def status(self):
        """By routing key, what happened, as a dict that json can print."""
        return {
            sensor.routing_key: {
                "sent": sensor.sent, "errors": sensor.errors, "error": sensor.error,
            }
            for sensor in self._sensors
        }  # fmt: skip


def _text(error):
    return "%s: %s" % (type(error).__name__, error)
