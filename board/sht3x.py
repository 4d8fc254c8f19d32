"""Driver of the Sensirion SHT30, SHT31 and SHT35: temperature and humidity over I2C.

The numbers are those of Sensirion's data sheet "SHT3x-DIS".
"""

from time import sleep

_MEASURE = b"\x24\x00"  # single shot, high repeatability, without clock stretching
_MEASURE_S = 0.016  # it takes at most 15.5 ms


class SHT3x:
    """
    i2c      machine.I2C or what has its writeto() and readfrom_into()
    address  0x44, or 0x45 with the pin ADDR at VDD
    """

    def __init__(self, i2c, address=0x44):
        self._i2c = i2c
        self._address = address
        self._octets = bytearray(6)  # temperature, CRC, humidity, CRC

    def read(self):
        """Measure: {"temperature": degrees C, "humidity": percent}. Takes 17 ms.

        Raises OSError when nobody answers or the answer is damaged.
        """
        self._i2c.writeto(self._address, _MEASURE)
        sleep(_MEASURE_S)
        octets = self._octets
        self._i2c.readfrom_into(self._address, octets)
        if crc8(octets, 0, 2) != octets[2] or crc8(octets, 3, 2) != octets[5]:
            raise OSError("SHT3x: the answer is damaged, its checksum is wrong")
        return {
            "temperature": round(175 * (octets[0] << 8 | octets[1]) / 65535 - 45, 2),
            "humidity": round(100 * (octets[3] << 8 | octets[4]) / 65535, 2),
        }


def crc8(octets, i, n):
    """The checksum of *n* octets from *i*: polynomial 0x31, begins with 0xFF."""
    crc = 0xFF
    for k in range(i, i + n):
        crc ^= octets[k]
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc
