"""The SHT3x driver, with a sensor made of octets."""

from time import time

from board.sht3x import SHT3x, crc8


class Bus:
    """An I2C bus with one sensor, which has measured *temperature* and *humidity* (raw)."""

    def __init__(self, temperature, humidity, address=0x44):
        self.address = address
        self.written = []
        self.answer = bytearray(6)
        for i, raw in ((0, temperature), (3, humidity)):
            self.answer[i] = raw >> 8
            self.answer[i + 1] = raw & 0xFF
            self.answer[i + 2] = crc8(self.answer, i, 2)

    def writeto(self, address, octets):
        if address != self.address:
            raise OSError(5)  # EIO: nobody acknowledged
        self.written.append(bytes(octets))
        return len(octets)

    def readfrom_into(self, address, buf):
        assert address == self.address and len(buf) == 6
        buf[:] = self.answer


def fails(sensor):
    try:
        sensor.read()
    except OSError as error:
        return str(error)
    raise AssertionError("it did not fail")


def test_the_checksum_is_that_of_the_data_sheet():
    assert crc8(b"\xbe\xef", 0, 2) == 0x92
    assert crc8(b"\x00\xbe\xef\x00", 1, 2) == 0x92


def test_it_measures_once_without_stretching_the_clock():
    bus = Bus(0x6666, 0x8000)
    SHT3x(bus).read()
    assert bus.written == [b"\x24\x00"]


def test_degrees_and_percent():
    for raw, temperature, humidity in (
        (0, -45, 0), (0xFFFF, 130, 100), (0x6666, 25, 40), (0x8000, 42.5, 50),
    ):  # fmt: skip
        read = SHT3x(Bus(raw, raw)).read()
        assert abs(read["temperature"] - temperature) < 0.01, read
        assert abs(read["humidity"] - humidity) < 0.01, read


def test_the_other_address():
    assert SHT3x(Bus(0x6666, 0x6666, 0x45), 0x45).read()["humidity"] == 40
    assert fails(SHT3x(Bus(0x6666, 0x6666, 0x45)))


def test_a_damaged_answer_is_not_believed():
    for octet in range(6):
        bus = Bus(0x6123, 0x8456)
        bus.answer[octet] ^= 0x10
        assert "damaged" in fails(SHT3x(bus)), octet


def test_the_broker_waits_less_than_50_ms():
    # 17 ms on a board; a busy desktop may need longer.
    sensor = SHT3x(Bus(0x6666, 0x8000))
    began = time()
    for _ in range(10):
        sensor.read()
    assert time() - began < 0.5
