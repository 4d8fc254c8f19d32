"""What this board measures: copy it to the board as app.py (`amqp-lite deploy --app FILE`).

main.py calls setup() once. Every answer becomes a message to the exchange "telemetry", which the
configuration has to declare; without it the status says so.
"""

from board.sht3x import SHT3x


def setup(node, sensors, board):
    """
    node     the broker: node.publish(), node.subscribe()
    sensors  sensors.add(function, seconds, routing key)
    board    of this machine: board.i2c(), board.led() ...
    """
    sensors.add(board.chip_temperature, 10, "chip.temperature")
    # An SHT3x at the board's own I2C pins: on a Pico W SDA is GP4 (pin 6), SCL is GP5 (pin 7).
    sensors.add(SHT3x(board.i2c()).read, 60, "room.air")
