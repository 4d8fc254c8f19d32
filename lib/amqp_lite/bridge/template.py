"""Names made of other names: "{device}.{routing_key}"."""

from ..compat import const, copy
from ..errors import ConfigError

_ROUTING_KEY = const(1)
_NAMES = ("exchange", "routing_key")
_LONGEST = const(255)  # octets, AMQP 0-9-1 §4.2.5.3


class Template:
    """
    text    with {device}, {exchange} and {routing_key}; the last two are a message's
    device  what {device} stands for
    skip    octets of the message's routing key to leave out

    fixed   octets of what is the same always; names: how many of a message's names come with it

    Raises ConfigError.
    """

    def __init__(self, text, device, skip=0):
        self._parts = []  # octets, or which of the message's names
        self._skip = skip
        fixed = ""
        while text:
            start = text.find("{")
            if start < 0:
                fixed += text
                break
            end = text.find("}", start)
            name = text[start + 1 : end] if end > 0 else text[start:]
            fixed += text[:start]
            text = text[end + 1 :] if end > 0 else ""
            if name == "device":
                fixed += device
            elif name in _NAMES:
                if fixed:
                    self._parts.append(fixed.encode())
                fixed = ""
                self._parts.append(_NAMES.index(name))
            else:
                raise ConfigError(
                    "no {%s}, there are {device}, {exchange} and {routing_key}" % name
                )
        if fixed:
            self._parts.append(fixed.encode())
        self.fixed = sum([len(part) for part in self._parts if isinstance(part, bytes)])
        self.names = len([part for part in self._parts if not isinstance(part, bytes)])
        self.constant = None  # octets, when it is the same for every message
        if not self._parts:
            self.constant = b""
        elif len(self._parts) == 1 and isinstance(self._parts[0], bytes):
            self.constant = self._parts[0]

    def write(self, head, i, to, at):
        """Write the name as a short string to *to* at *at*: the index behind it.

        head, i  where the message's exchange and routing key are, as short strings

        0 when it would be longer than 255 octets.
        """
        start = at
        at += 1
        for part in self._parts:
            if isinstance(part, bytes):
                n = len(part)
                if at + n - start > _LONGEST + 1:
                    return 0
                copy(to, at, part, 0, n)
            else:
                name = i
                skip = 0
                if part == _ROUTING_KEY:
                    name = i + 1 + head[i]
                    skip = self._skip
                n = head[name] - skip
                if n < 0 or at + n - start > _LONGEST + 1:
                    return 0
                copy(to, at, head, name + 1 + skip, n)
            at += n
        to[start] = at - start - 1
        return at
