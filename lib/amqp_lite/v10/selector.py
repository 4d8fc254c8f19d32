"""JMS message selectors (JMS 2.0 §3.8.1): what is in a filter described as
`apache.org:selector-filter:string` or 0x0000468C00000004.

From the loosest to the tightest, those of one number from left to right:

    1   a OR b
    2   a AND b
    3   NOT a
    4   a = b   a <> b   a IS [NOT] NULL
    5   a < b   a <= b   a > b   a >= b   a [NOT] BETWEEN b AND c
        a [NOT] IN ('x', 'y')   a [NOT] LIKE 'x%_' [ESCAPE '$']
    6   a + b   a - b
    7   a * b   a / b
    8   -a   +a
        (a)   57   6.2   7E3   'it''s'   TRUE   FALSE   name   "any name"

Keywords are in any case. Logic has three values: of what is not there all but IS NULL is UNKNOWN,
None here. Comparing values of two types is false, by <> as well; arithmetic with what is no number
is UNKNOWN, and so are a division by zero and an integer of more than 64 bits. Neither UNKNOWN nor
false matches. Of what Broker-J reads, hexadecimal and octal numbers, comments, NULL as a value and
% are not here.

A selector becomes postfix code. Nothing recurs, neither to read it nor to run it. A run costs a
step for each name, value and operator, and one for each letter that a LIKE looks at.
"""

from binascii import hexlify

from ..compat import const
from ..errors import SyntaxFailure
from .codec import find_key, skip_value
from .conditions import InvalidField
from .performatives import HEADER, PROPERTIES, Fields
from .sections import section_at, section_value
from .values import Symbol, read_value

_LONGEST = const(1024)  # letters
_MOST_NODES = const(64)  # names, values, operators
_DEEPEST = const(16)  # parentheses in each other
_LARGEST = 1 << 63

_ANNOTATIONS = const(0x72)  # descriptors, AMQP 1.0 §3.2
_APPLICATION_PROPERTIES = const(0x74)

# Kinds of values. A name is of any until it is looked up.
_BOOLEAN = const(1)
_NUMBER = const(2)
_TEXT = const(4)
_ANY = const(7)
_KINDS = {1: "conditions", 2: "numbers", 4: "strings", 7: "two values of one type"}

_TIGHTEST = const(8)  # the sign of a number
_OPEN = (0, "(")
_WORDS = ("AND", "OR", "NOT", "BETWEEN", "LIKE", "ESCAPE", "IN", "IS", "NULL", "TRUE", "FALSE")

# The headers of JMS that may be asked for, and their fields in properties.
_HEADERS = {
    "JMSMessageID": 0, "JMSXUserID": 1, "JMSType": 3, "JMSCorrelationID": 5, "JMSTimestamp": 9,
    "JMSXGroupID": 10, "JMSXGroupSeq": 11, "JMSDeliveryMode": -1, "JMSPriority": -1,
}  # fmt: skip


class Selector:
    """What *text* selects. Raises InvalidField when it is none, or too large."""

    def __init__(self, text):
        if len(text) > _LONGEST:
            raise InvalidField("selector: more than %d letters" % _LONGEST)
        self._code = _Parser(text).parse()

    def matches(self, lookup):
        """Whether it is true of the message whose values lookup(name) tells; None: not there."""
        stack = []
        for what, value in self._code:
            if what == "name":
                stack.append(lookup(value))
            elif what == "value":
                stack.append(value)
            else:
                operands = stack[-value:]
                del stack[-value:]
                stack.append(what(*operands))
        return stack[0] is True


class _Parser:
    """Makes code of a text: ("name", name), ("value", value) or (function, count of operands)."""

    def __init__(self, text):
        self.text = text
        self.start = self.stop = 0  # of the token
        self.token = ""  # "name", "value", "end", a keyword or a sign
        self.value = None  # of a name or a literal
        self.code = []
        self.nodes = 0
        self.kinds = []  # of the values that the code leaves on the stack
        # Operators that wait for an operand: (how tight, which). 0: that and another token.
        self.ops = []

    def parse(self):
        self.next()
        self.operand()
        while self.operator():
            self.operand()
        if not self.kinds[0] & _BOOLEAN:
            self.refuse("a condition was due, no number or string")
        return self.code

    def refuse(self, why):
        rest = self.text[self.start : self.start + 20] or "the end"
        rest = "".join([letter if letter >= " " else "?" for letter in rest])
        raise InvalidField("selector: %s at letter %d: %s" % (why, self.start + 1, rest))

    def next(self):
        text = self.text
        n = len(text)
        i = self.stop
        while i < n and text[i] in " \t\n\r\f":
            i += 1
        self.start = i
        letter = text[i : i + 1]
        self.token = "name" if letter == '"' else "value"
        if not letter:
            self.token = "end"
        elif letter in "'\"":
            while text[i : i + 1] == letter:  # two of them are one that is meant
                i = text.find(letter, i + 1) + 1
                if not i:
                    self.refuse("a %s without its end" % letter)
            self.value = text[self.start + 1 : i - 1].replace(letter + letter, letter)
        elif _is_digit(letter) or (letter == "." and _is_digit(text[i + 1 : i + 2])):
            while i < n and (
                text[i] in "0123456789.eElL" or (text[i] in "+-" and text[i - 1] in "eE")
            ):
                i += 1
            self.value = _number(text[self.start : i])
            if self.value is None:
                self.refuse("no number")
        elif _is_letter(letter):
            while i < n and _is_letter(text[i]):
                i += 1
            self.value = text[self.start : i]
            word = self.value.upper()
            self.token = word if word in _WORDS else "name"
            if word == "TRUE" or word == "FALSE":
                self.token = "value"
                self.value = word == "TRUE"
        else:
            i += 2 if text[i : i + 2] in ("<>", "<=", ">=") else 1
            self.token = text[self.start : i]
        self.stop = i

    def accept(self, token):
        """Go on behind the token if it is this one: whether it was."""
        if self.token != token:
            return False
        self.next()
        return True

    def expect(self, token):
        if not self.accept(token):
            self.refuse(token + " was due")

    def string(self):
        value = self.value
        if self.token != "value" or not isinstance(value, str):
            self.refuse("a string was due")
        self.next()
        return value

    def operand(self):
        while self.token in ("(", "NOT", "-", "+"):
            tight = 0
            if self.token == "NOT":
                tight = 3
            elif self.token != "(":
                self.emit("value", 0, _NUMBER)
                tight = _TIGHTEST
            elif self.ops.count(_OPEN) == _DEEPEST:
                self.refuse("more than %d open (" % _DEEPEST)
            self.ops.append((tight, self.token))
            self.next()
        name = value = self.value
        if self.token == "value":
            self.emit("value", value, _kind(value))
        elif self.token != "name":
            self.refuse("a value was due")
        elif name[:3] == "JMS" and name not in _HEADERS and name[3:4] not in "X_":
            self.refuse("a header that selectors may not have")
        else:
            self.emit("name", name, _ANY)
        self.next()

    def operator(self):
        """Read what is before the next operand: False when there is none."""
        while True:
            if self.accept(")"):
                self.reduce(1)
                if not self.ops or self.ops.pop() != _OPEN:
                    self.refuse("a ) without its (")
                continue
            is_test = self.accept("IS")
            negated = self.accept("NOT")
            if is_test:
                self.reduce(4)
                self.expect("NULL")
                self.apply("IS")
            elif self.accept("BETWEEN"):
                self.reduce(5)
                self.ops.append((0, "NOT BETWEEN" if negated else "BETWEEN"))
                return True
            elif self.token == "IN" or self.token == "LIKE":
                op = self.token
                self.reduce(5)
                self.next()
                self.emit("value", self.strings() if op == "IN" else self.pattern(), _TEXT)
                self.apply(op)
            elif negated:
                self.refuse("BETWEEN, IN or LIKE was due")
            else:
                break
            if negated:
                self.apply("NOT")
        op = self.token
        if op == "end":
            self.reduce(1)
            if self.ops:
                self.refuse("a ( without its )" if _OPEN in self.ops else "BETWEEN without AND")
            return False
        if op not in _OPERATORS:
            self.refuse("an operator was due")
        self.next()
        if op == "AND":
            self.reduce(6)
            if self.ops and self.ops[-1][0] == 0 and self.ops[-1] != _OPEN:
                self.ops.append((5, self.ops.pop()[1]))
                return True
        tight = _OPERATORS[op][0]
        self.reduce(tight)
        self.ops.append((tight, op))
        return True

    def strings(self):
        self.expect("(")
        found = [self.string()]
        while self.accept(","):
            found.append(self.string())
        self.expect(")")
        self.nodes += len(found)
        return found

    def pattern(self):
        """(bits by letter, bits of _, bits of %, bit of the end) of a pattern, see _is_like()."""
        pattern = self.string()
        escape = self.string() if self.accept("ESCAPE") else None
        if escape is not None and len(escape) != 1:
            self.refuse("ESCAPE takes one letter")
        masks = {}
        single = several = 0
        bit = 1
        escaped = False
        for letter in pattern:
            if escaped or letter not in (escape, "%", "_"):
                masks[letter] = masks.get(letter, 0) | bit
                escaped = False
            elif letter == escape:
                escaped = True
                continue
            elif letter == "%":
                several |= bit
                continue
            else:
                single |= bit
            bit <<= 1
        if escaped:
            self.refuse("a pattern that ends with its ESCAPE")
        for letter in masks:
            masks[letter] |= single
        return masks, single, several, bit

    def reduce(self, tight):
        """Apply what waits and is as tight."""
        while self.ops and self.ops[-1][0] >= tight:
            self.apply(self.ops.pop()[1])

    def apply(self, op):
        _, count, wanted, made, function = _OPERATORS[op]
        common = _ANY
        for _ in range(count):
            kind = self.kinds.pop() & wanted
            common = common & kind if wanted == _ANY else common and kind
        if not common:
            raise InvalidField("selector: %s takes %s" % (op, _KINDS[wanted]))
        self.emit(function, count, made)

    def emit(self, what, value, kind):
        self.code.append((what, value))
        self.kinds.append(kind)
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise InvalidField("selector: more than %d names, values and operators" % _MOST_NODES)


def _is_digit(letter):
    return "0" <= letter <= "9"


def _is_letter(letter):
    """Whether it can be in a name: as in Java, or a dot."""
    return "a" <= letter.lower() <= "z" or _is_digit(letter) or letter in "_$." or letter > "\x7f"


def _number(digits):
    """None: there is no such number, or it is octal or too long."""
    exact = digits[:-1] if digits[-1] in "lL" else digits
    try:
        if "." in digits or "e" in digits or "E" in digits:
            return float(digits)
        value = int(exact)
    except ValueError:
        return None
    # With a sign the largest is one.
    return None if value > _LARGEST or (exact[0] == "0" and exact != "0") else value


def _kind(value):
    """0: of none that can be compared."""
    if value is True or value is False:  # on CPython they are int as well
        return _BOOLEAN
    return _NUMBER if isinstance(value, (int, float)) else _TEXT if isinstance(value, str) else 0


def _alike(a, b, kinds=_ANY):
    """Whether they compare; None: one is not there."""
    if a is None or b is None:
        return None
    kind = _kind(a)
    return kind & kinds != 0 and kind == _kind(b)


def _numbers(a, b):
    return _alike(a, b, _NUMBER)


# A condition that is no boolean is not true.


def _and(a, b):
    if (a is None or a is True) and (b is None or b is True):
        return None if a is None or b is None else True
    return False


def _or(a, b):
    if a is True or b is True:
        return True
    return None if a is None or b is None else False


def _fit(value):
    """Else each step could double its length."""
    return None if isinstance(value, int) and not -_LARGEST <= value < _LARGEST else value


def _divide(a, b):
    if not _numbers(a, b) or not b:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    value = abs(a) // abs(b)  # SQL and Java cut towards 0
    return value if (a < 0) == (b < 0) else -value


def _is_like(text, pattern):
    """Whether *text* is like it, in one step for each of its letters, whatever the pattern.

    A bit stands for a place in the pattern, and is set when the text so far leads there. With the
    next letter those bits go on by one whose letter it is; where a % is they stay as well.
    """
    if not isinstance(text, str):
        return None if text is None else False
    masks, single, several, end = pattern
    bits = 1
    for letter in text:
        bits = (bits & masks.get(letter, single)) << 1 | bits & several
        if not bits:
            return False
    return bits & end != 0


# How tight it is, the count of its operands, their kind and its own, what it does.
_OPERATORS = {
    "OR": (1, 2, _BOOLEAN, _BOOLEAN, _or),
    "AND": (2, 2, _BOOLEAN, _BOOLEAN, _and),
    "NOT": (3, 1, _BOOLEAN, _BOOLEAN, lambda a: None if a is None else a is not True),
    "IS": (4, 1, _ANY, _BOOLEAN, lambda a: a is None),
    "=": (4, 2, _ANY, _BOOLEAN, lambda a, b: _alike(a, b) and a == b),
    "<>": (4, 2, _ANY, _BOOLEAN, lambda a, b: _alike(a, b) and a != b),
    "<": (5, 2, _NUMBER, _BOOLEAN, lambda a, b: _numbers(a, b) and a < b),
    "<=": (5, 2, _NUMBER, _BOOLEAN, lambda a, b: _numbers(a, b) and a <= b),
    ">": (5, 2, _NUMBER, _BOOLEAN, lambda a, b: _numbers(a, b) and a > b),
    ">=": (5, 2, _NUMBER, _BOOLEAN, lambda a, b: _numbers(a, b) and a >= b),
    "BETWEEN": (5, 3, _NUMBER, _BOOLEAN, lambda a, b, c: _and(
        _numbers(a, b) and a >= b, _numbers(a, c) and a <= c
    )),
    "NOT BETWEEN": (5, 3, _NUMBER, _BOOLEAN, lambda a, b, c: _or(
        _numbers(a, b) and a < b, _numbers(a, c) and a > c
    )),
    "IN": (5, 2, _TEXT, _BOOLEAN, lambda a, b: a if a is None else isinstance(a, str) and a in b),
    "LIKE": (5, 2, _TEXT, _BOOLEAN, _is_like),
    "+": (6, 2, _NUMBER, _NUMBER, lambda a, b: _fit(a + b) if _numbers(a, b) else None),
    "-": (6, 2, _NUMBER, _NUMBER, lambda a, b: _fit(a - b) if _numbers(a, b) else None),
    "*": (7, 2, _NUMBER, _NUMBER, lambda a, b: _fit(a * b) if _numbers(a, b) else None),
    "/": (7, 2, _NUMBER, _NUMBER, _divide),
}  # fmt: skip


class Properties:
    """The values of an AMQP 1.0 message by the names they have in selectors.

    Application properties have their own names. A symbol or uuid is a string here.
    """

    def __init__(self):
        self._fields = Fields()
        self.load(b"", 0, 0)

    def load(self, buf, start, end):
        """The sections before the message's body are buf[start:end], as they were stored."""
        fields = self._fields
        self._buf = buf
        self._durable = False
        self._priority = 4
        self._at = None  # of the fields of properties
        self._annotations = self._applications = -1
        while start < end:
            code = section_at(buf, start, end)
            at = section_value(buf, start)
            if code == HEADER:
                fields.scan(buf, start, end)
                self._durable = fields.boolean(0)
                self._priority = fields.uint(1, 4)
            elif code == PROPERTIES:
                fields.scan(buf, start, end)
                self._at = fields.at
            elif code == _ANNOTATIONS:
                self._annotations = at
            elif code == _APPLICATION_PROPERTIES:
                self._applications = at
            start = skip_value(buf, at)

    def lookup(self, name):
        """A str, int, float or bool; None: not there; anything else compares with nothing."""
        if name == "JMSDeliveryMode":
            return "PERSISTENT" if self._durable else "NON_PERSISTENT"
        if name == "JMSPriority":
            return self._priority
        at = -1
        if name not in _HEADERS:
            at = self._find(self._applications, name.encode())
        elif self._at:
            at = self._at[_HEADERS[name]]
        if at < 0 and name == "JMSType":
            # Where convert.py leaves the type of what came by 0-9-1.
            at = self._find(self._annotations, b"x-basic-type")
        if at < 0:
            return None
        try:
            value = read_value(self._buf, at)[0]
            if name == "JMSXUserID":
                return str(value, "utf-8")
        except (SyntaxFailure, UnicodeError):
            return None
        if self._buf[at] == 0x98:
            value = str(hexlify(value), "utf-8")
            cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
            return "-".join([value[i:k] for i, k in cuts])
        return value.text if isinstance(value, Symbol) else value

    def _find(self, at, name):
        return -1 if at < 0 else find_key(self._buf, at, name)
