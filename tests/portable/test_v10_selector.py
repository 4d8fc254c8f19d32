"""Selectors: what they mean, what is refused and how, and the values they ask messages for."""

from amqp_lite.convert import to_v10
from amqp_lite.v091.properties import write_properties
from amqp_lite.v10.conditions import InvalidField
from amqp_lite.v10.performatives import HEADER, PROPERTIES, described, uint
from amqp_lite.v10.selector import Properties, Selector
from amqp_lite.v10.values import Described, Symbol, Typed, write_value
from chance import seeded

VALUES = {
    "t": True, "f": False, "i": 7, "j": -3, "d": 2.5, "s": "abc", "e": "", "q": "it's",
    "o": b"abc", "any name": 1, "$_1.x": 2, "größe": 3, "AND": 4, "ISO": 5,
    "notes": "n", "nul": None,
}  # fmt: skip


def true(text, values=VALUES):
    return Selector(text).matches(values.get)


def value_of(text, values=VALUES):
    """True, False or None: by what it and its negation match."""
    found = true(text, values), true("NOT (%s)" % text, values)
    assert found != (True, True), text
    return True if found[0] else False if found[1] else None


def error_of(text):
    try:
        Selector(text)
    except InvalidField as error:
        assert error.condition == "amqp:invalid-field"
        assert error.text.startswith("selector: ") and len(error.text) < 120, error.text
        for letter in error.text:
            assert letter >= " ", error.text
        return error.text[10:]
    raise AssertionError("%r is a selector" % text)


# --- logic ---


def test_three_valued_logic():
    three = {True: "t", False: "f", None: "nothing = 1"}
    for a in three:
        assert value_of(three[a]) is a
        for b in three:
            both = False if a is False or b is False else None if None in (a, b) else True
            either = True if a is True or b is True else None if None in (a, b) else False
            assert value_of("%s AND %s" % (three[a], three[b])) is both, (a, b)
            assert value_of("%s OR %s" % (three[a], three[b])) is either, (a, b)
    assert value_of("NOT t") is False and value_of("NOT f") is True
    assert value_of("NOT nothing = 1") is None
    assert value_of("TRUE") is True and value_of("FALSE") is False


def test_what_is_no_boolean_is_not_true():
    for name in ("i", "s", "o", "d"):
        assert value_of(name) is False
        assert value_of("%s OR t" % name) is True
        assert value_of("t AND %s" % name) is False
    assert value_of("nothing") is None
    one = {"x": 1}
    assert not true("x", one) and not true("x AND TRUE", one) and not true("x OR FALSE", one)


def test_what_is_not_there_makes_everything_unknown():
    for text in (
        "x = 1", "x <> 1", "x < 1", "1 >= x", "x = x", "x BETWEEN 1 AND 2", "1 BETWEEN 0 AND x",
        "x NOT BETWEEN 1 AND 2", "x IN ('a')", "x NOT IN ('a')", "x LIKE '%'", "x NOT LIKE '%'",
        "x + 1 = 1", "-x = 1", "x * 0 = 0", "x = 'a'", "x = TRUE", "x", "NOT x",
    ):  # fmt: skip
        assert value_of(text) is None, text
    assert value_of("x IS NULL") is True and value_of("x IS NOT NULL") is False
    # What is decided is known all the same.
    assert value_of("1 BETWEEN 2 AND x") is False
    assert value_of("1 NOT BETWEEN 2 AND x") is True


# --- operators ---

ARE = [
    "i = 7", "7 = i", "i <> 8", "i < 8", "i <= 7", "i > 6", "i >= 7", "i=7.0", "d = 2.5", "d > 2",
    "s = 'abc'", "s <> 'ABC'", "e = ''", "q = 'it''s'", "t = TRUE", "t <> FALSE", "t = true",
    "i BETWEEN 7 AND 7", "i BETWEEN 7 AND 8 AND t", "i BETWEEN 6.5 AND 7.5",
    "j NOT BETWEEN -2 AND 0", "i + 1 BETWEEN i AND i * 2", "f OR i BETWEEN 1 AND 9",
    "s IN ('abc')", "s IN ('x', 'abc' , 'y')", "s NOT IN ('x')", "e IN ('')",
    "s LIKE 'abc'", "s LIKE 'a%'", "s LIKE '_b_'", "s NOT LIKE 'b%'", "s LIKE 'a$bc' ESCAPE '$'",
    "nul IS NULL", "s IS NOT NULL", "e IS NOT NULL", "o IS NOT NULL", "f IS NOT NULL",
    "i + j = 4", "i - j = 10", "i * j = -21", "i / 2 = 3", "j / 2 = -1", "i / 2.0 = 3.5",
    "7 / d > 2.7", "-i = -7", "+i = 7", "- - i = 7", "-(i + 1) = -8", "d * 2 = 5", "2 - -1 = 3",
    "i = 7L", "i < 7E3", "d = 25e-1", "d = 0.25E+1", "i = 7.", "i > .5", "0 = 0", "j = -3",
    "9223372036854775807 > i", "-9223372036854775808 < i", "i >-9223372036854775808",
    '"any name" = 1', "$_1.x = 2", "größe = 3", '"AND" = 4', '"s" = \'abc\'', "ISO = 5",
    "notes = 'n'", "not f", "t aNd Not f", "s Like 'a%' eScaPe '!'", "s iN ('abc')",
    "nul iS nuLL", "i betWEEN 1 AND 9", "\tt\r\n\f", "t OR(f)AND(f)", "i=7AND t", "(t)",
]  # fmt: skip
ARE_NOT = [
    "i = 8", "i <> 7", "i < 7", "i <= 6", "i > 7", "i >= 8", "s = 'ABC'", "q = 'its'", "t = FALSE",
    "i BETWEEN 8 AND 6", "i BETWEEN 1 AND 6", "i NOT BETWEEN 1 AND 9", "i NOT BETWEEN 7 AND 9",
    "i NOT BETWEEN 1 AND 7", "NOT i = 7", "NOT i + 1 = 8", "s IN ('ab', 'bc')",
    "s NOT IN ('abc')", "s LIKE 'b%'", "s LIKE '__'", "s LIKE ''", "s IS NULL", "e IS NULL",
    "s NOT LIKE '%'",
]  # fmt: skip


def test_operators():
    for text in ARE:
        assert value_of(text) is True, text
    for text in ARE_NOT:
        assert value_of(text) is False, text


def test_precedence():
    for text, same in (
        ("t OR t AND f", "t OR (t AND f)"),
        ("f AND f OR t", "(f AND f) OR t"),
        ("NOT f AND f", "(NOT f) AND f"),
        ("NOT t OR t", "(NOT t) OR t"),
        ("NOT f = f", "NOT (f = f)"),
        ("NOT NOT t", "NOT (NOT t)"),
        ("t = NOT f", "t = (NOT f)"),
        ("NOT i IN ('a') AND t", "(NOT (i IN ('a'))) AND t"),
        ("f = 1 > 2", "f = (1 > 2)"),
        ("1 > 2 = f", "(1 > 2) = f"),
        ("nul IS NULL = t", "(nul IS NULL) = t"),
        ("i > 1 IS NOT NULL", "(i > 1) IS NOT NULL"),
        ("1 + 2 * 3 = i", "(1 + (2 * 3)) = i"),
        ("10 - 2 - 1 = i", "((10 - 2) - 1) = i"),
        ("10 - 1 * 3 = i", "(10 - (1 * 3)) = i"),
        ("9 - 4 / 2 = i", "(9 - (4 / 2)) = i"),
        ("2 * 5 - 3 = i", "((2 * 5) - 3) = i"),
        ("-8 / -2 / 2 = 2", "((-8) / (-2)) / 2 = 2"),
        ("8 - -1 - 2 = i", "((8 - (-1)) - 2) = i"),
        ("2 * -3 + 13 = i", "((2 * (-3)) + 13) = i"),
        ("i BETWEEN 1 + 1 AND 2 * 4 AND f OR t", "((i BETWEEN (1+1) AND (2*4)) AND f) OR t"),
        ("i BETWEEN 1 AND 9 = t", "(i BETWEEN 1 AND 9) = t"),
        ("f AND t OR i NOT BETWEEN 8 AND 9", "(f AND t) OR (i NOT BETWEEN 8 AND 9)"),
    ):
        assert value_of(text) is value_of(same) is not None, text
    assert true("t OR t AND f") and not true("(t OR t) AND f")
    assert true("f AND f OR t") and not true("f AND (f OR t)")
    assert not true("NOT f AND f") and true("NOT (f AND f)")
    assert true("10 - 1 * 3 = i") and true("9 - 4 / 2 = i") and true("2 * 5 - 3 = i")
    assert true("2 * 3 + 1 = i") and true("2 * (3 + 1) = 8") and true("10 - (2 - 1) = 9")
    assert true("-8 / -2 / 2 = 2") and true("8 / (4 / 2) = 4") and true("-2 * 3 = -6")


def test_values_of_two_types_are_neither_equal_nor_unequal():
    for text in (
        "i = 'abc'", "i <> 'abc'", "s = 7", "s <> 7", "t = 1", "f = 0", "t <> 0", "t = 'TRUE'",
        "o = 'abc'", "o <> 'abc'", "o = o", "o <> i", "s < 7", "s >= 7", "s < s", "s <= s",
        "t > f", "o < o", "s BETWEEN 1 AND 2", "s NOT BETWEEN 1 AND 2", "i IN ('7')",
        "o IN ('abc')", "i LIKE '7'", "o LIKE '%'", "t IN ('TRUE')",
    ):  # fmt: skip
        assert value_of(text) is False, text
    assert true("NOT i = 'abc'") and true("i NOT IN ('7')") and true("i NOT LIKE '7'")


def test_arithmetic_without_a_result_is_unknown():
    for text in (
        "i / 0 = 0", "i / 0.0 > 0", "d / (i - 7) > 0", "s + 1 = 1", "t + 1 = 2", "s + s = 1",
        "o * 2 = 1", "s * 2 <> 1", "-s = 1", "i * 9223372036854775807 > 0",
        "-9223372036854775808 - 1 < 0",
    ):  # fmt: skip
        assert value_of(text) is None, text
        assert true("(%s) IS NULL" % text)
    many = "*".join(["big"] * 31)
    for big in (2**63 - 1, 2**64 - 1, 1e300, -1e300):
        assert not true(many + " = 1", {"big": big})
        assert true("%s IS NULL" % many, {"big": big}) is isinstance(big, int)
    assert not true("x - x = 0", {"x": float("inf")})


# --- LIKE ---


def test_patterns():
    for pattern, texts, others in (
        ("12%3", ("123", "12993", "1233", "12%3"), ("1234", "12", "13", "")),
        ("l_se", ("lose", "l_se", "läse"), ("loose", "lse", "lose ")),
        ("!_%", ("_foo", "_"), ("bar", "", "x_")),
        ("!!!%", ("!%",), ("!!%", "!", "!x")),
        ("%", ("", "x", "\n"), ()),
        ("%%%", ("", "x", "xyz"), ()),
        ("_%_", ("ab", "abc"), ("", "a")),
        ("%ab%ab", ("abab", "xabyab", "ababab"), ("ab", "aba", "ababx")),
        ("%aab", ("aaab", "aab", "abaab"), ("ab", "aaba")),
        ("a%", ("a", "ab"), ("", "ba")),
        ("", ("",), ("a", " ")),
        (".*[a]", (".*[a]",), ("xa", "")),
        ("%_ß_%", ("aßb", "ßßßß"), ("ßb", "aß")),
        ("it''s", ("it's",), ("its",)),
    ):
        selector = Selector("x LIKE '%s' ESCAPE '!'" % pattern)
        for text in texts:
            assert selector.matches({"x": text}.get), (pattern, text)
        for text in others:
            assert not selector.matches({"x": text}.get), (pattern, text)
    assert true("x LIKE '100%%' ESCAPE '%'", {"x": "100%"})
    assert not true("x LIKE '100%%' ESCAPE '%'", {"x": "1000"})
    assert true("x LIKE '__%' ESCAPE '_'", {"x": "_0"})


def test_patterns_take_a_step_for_each_letter():
    # Whoever tries again behind each % does not come back from these.
    text = "a" * 2000
    for pattern in ("%a" * 200 + "%b", "%" * 500 + "b", "%_a" * 150 + "b", "%a_" * 150 + "b%"):
        selector = Selector("x LIKE '%s'" % pattern)
        assert not selector.matches({"x": text}.get)
        assert selector.matches({"x": text + "b"}.get), pattern


def _is_like(text, pattern):
    if not pattern:
        return not text
    if pattern[0] == "%":
        return _is_like(text, pattern[1:]) or (text != "" and _is_like(text[1:], pattern))
    return text != "" and pattern[0] in ("_", text[0]) and _is_like(text[1:], pattern[1:])


def test_random_patterns():
    random = seeded()
    for _ in range(300):
        pattern = "".join([random.choice("ab_%") for _ in range(random.randint(0, 6))])
        selector = Selector("x LIKE '%s'" % pattern)
        for _ in range(5):
            text = "".join([random.choice("abc") for _ in range(random.randint(0, 7))])
            assert selector.matches({"x": text}.get) is _is_like(text, pattern), (text, pattern)


# --- what is refused ---


def test_what_is_refused():
    for text, error in (
        ("", "a value was due at letter 1: the end"),
        ("  ", "a value was due at letter 3: the end"),
        ("a =", "a value was due at letter 4: the end"),
        ("a = = 1", "a value was due at letter 5: = 1"),
        ("AND a", "a value was due at letter 1: AND a"),
        ("a OR", "a value was due at letter 5: the end"),
        ("a = NULL", "a value was due at letter 5: NULL"),
        ("()", "a value was due at letter 2: )"),
        ("a b", "an operator was due at letter 3: b"),
        ("a = 1 b", "an operator was due at letter 7: b"),
        ("a == 1", "a value was due at letter 4: = 1"),
        ("a != 1", "an operator was due at letter 3: != 1"),
        ("a = 1; b", "an operator was due at letter 6: ; b"),
        ("a % 2 = 1", "an operator was due at letter 3: % 2 = 1"),
        ("a (b)", "an operator was due at letter 3: (b)"),
        ("a ESCAPE 'x'", "an operator was due at letter 3: ESCAPE 'x'"),
        ("a = \xa7", None),
        ("#", "a value was due at letter 1: #"),
        ("(a", "a ( without its ) at letter 3: the end"),
        ("a BETWEEN (1 AND 2", "AND takes conditions"),
        ("a)", "a ) without its ( at letter 3: the end"),
        ("(a)) OR b", "a ) without its ( at letter 6: OR b"),
        ("a = 'x", "a ' without its end at letter 5: 'x"),
        ("a = 'x''", "a ' without its end at letter 5: 'x''"),
        ('"a = 1', 'a " without its end at letter 1: "a = 1'),
        ("a NOT 1", "BETWEEN, IN or LIKE was due at letter 7: 1"),
        ("a NOT NULL", "BETWEEN, IN or LIKE was due at letter 7: NULL"),
        ("a IS", "NULL was due at letter 5: the end"),
        ("a IS TRUE", "NULL was due at letter 6: TRUE"),
        ("a IS NOT 'x'", "NULL was due at letter 10: 'x'"),
        ("a BETWEEN 1", "BETWEEN without AND at letter 12: the end"),
        ("a BETWEEN b OR c", "BETWEEN without AND at letter 17: the end"),
        ("a BETWEEN 1, 2", "an operator was due at letter 12: , 2"),
        ("(a BETWEEN 1) AND 2", "a ) without its ( at letter 15: AND 2"),
        ("a BETWEEN AND 2", "a value was due at letter 11: AND 2"),
        ("a IN 'x'", "( was due at letter 6: 'x'"),
        ("a IN ()", "a string was due at letter 7: )"),
        ("a IN ('x',)", "a string was due at letter 11: )"),
        ("a IN ('x' 'y')", ") was due at letter 11: 'y')"),
        ("a IN (1)", "a string was due at letter 7: 1)"),
        ("a IN (b)", "a string was due at letter 7: b)"),
        ("a LIKE b", "a string was due at letter 8: b"),
        ("a LIKE 5", "a string was due at letter 8: 5"),
        ("a LIKE 'x' ESCAPE", "a string was due at letter 18: the end"),
        ("a LIKE 'x' ESCAPE 'yz'", "ESCAPE takes one letter at letter 23: the end"),
        ("a LIKE 'x' ESCAPE ''", "ESCAPE takes one letter at letter 21: the end"),
        ("a LIKE 'x!' ESCAPE '!'", "a pattern that ends with its ESCAPE at letter 23: the end"),
        ("a = 1.2.3", "no number at letter 5: 1.2.3"),
        ("a = 1e", "no number at letter 5: 1e"),
        ("a = 1e+", "no number at letter 5: 1e+"),
        ("a = 1.5L", "no number at letter 5: 1.5L"),
        ("a = 012", "no number at letter 5: 012"),
        ("a = 9223372036854775809", "no number at letter 5: 9223372036854775809"),
        ("a = 0x10", "an operator was due at letter 6: x10"),
        ("a = 1_0", "an operator was due at letter 6: _0"),
        ("a = 1\u0661", "an operator was due at letter 6: \u0661"),
        ("a =\n\0b\x01", "a value was due at letter 5: ?b?"),
        ("JMSDestination = 'q'", None),
        ("t AND JMSReplyTo IS NULL", None),
        ("JMSExpiration > 0", None),
        ("JMSRedelivered", "a header that selectors may not have at letter 1: JMSRedelivered"),
        ("jmsDestination = 'q'", ""),
        ("JMS_vendor = 1 OR JMSXAppID = 'x'", ""),
    ):  # fmt: skip
        if error == "" or (error is None and text[-1] == "\xa7"):
            Selector(text)
        elif error is None:
            assert error_of(text).startswith("a header that selectors may not have at letter")
        else:
            assert error_of(text) == error, text


def test_what_can_never_compare_is_refused():
    for text, error in (
        ("5", "a condition was due, no number or string at letter 2: the end"),
        ("'x'", "a condition was due, no number or string at letter 4: the end"),
        ("a + 1", "a condition was due, no number or string at letter 6: the end"),
        ("a > 'x'", "> takes numbers"),
        ("TRUE <= a", "<= takes numbers"),
        ("a < b < c", "< takes numbers"),
        ("(a = 1) + 1 = 2", "+ takes numbers"),
        ("-'x' = 1", "- takes numbers"),
        ("a BETWEEN 'a' AND 'b'", "BETWEEN takes numbers"),
        ("a NOT BETWEEN 1 AND TRUE", "NOT BETWEEN takes numbers"),
        ("1 = 'x'", "= takes two values of one type"),
        ("'x' <> TRUE", "<> takes two values of one type"),
        ("a + 1 = 'x'", "= takes two values of one type"),
        ("a AND 1", "AND takes conditions"),
        ("'x' OR a", "OR takes conditions"),
        ("NOT 1", "NOT takes conditions"),
        ("1 IN ('x')", "IN takes strings"),
        ("a + 1 LIKE '2'", "LIKE takes strings"),
    ):
        assert error_of(text) == error, text


def test_size_is_bounded():
    name = "n" * 1020
    assert Selector(name + " = 1").matches({name: 1}.get)
    assert error_of(name + "n = 1") == "more than 1024 letters"
    assert error_of("(" * 10240) == "more than 1024 letters"
    assert error_of("(" * 1024) == "more than 16 open ( at letter 17: (((((((((((((((((((("
    assert true("(" * 16 + "t" + ")" * 16)
    assert true(" AND ".join(["(" * 16 + "t" + ")" * 16] * 3))
    for deep in ("NOT ", "t=", "- +", "t AND NOT "):
        assert error_of(deep * 100 + "t") == "more than 64 names, values and operators", deep
    assert true("NOT " * 62 + "t")
    assert true(" OR ".join(["f"] * 31 + ["t"]))
    assert error_of(" OR ".join(["f"] * 33)) == "more than 64 names, values and operators"
    assert true("s IN ('abc'" + ", ''" * 60 + ")")
    assert error_of("s IN (''" + ", ''" * 64 + ")") == "more than 64 names, values and operators"
    assert error_of("'" * 1023) == "a ' without its end at letter 1: " + "'" * 20
    assert true("x = '%s'" % ("''" * 500), {"x": "'" * 500})
    assert error_of("a = " + "9" * 1020).startswith("no number at letter 5: 999")
    assert true("x < 1e999", {"x": 1})
    assert true("x = %s1.0" % ("0" * 1000), {"x": 1})
    assert true("x LIKE '%s'" % ("a" * 1014), {"x": "a" * 1014})


# --- random ones ---


def _make(random, depth):
    """A random condition: (text, how tight its operator is, value), by SQL's own rules."""
    kind = random.randint(0, 8 if depth else 4)
    if kind < 2:
        name = random.choice(("t", "f", "u"))
        return name, 9, {"t": True, "f": False, "u": None}[name]
    if kind < 5:
        a, tight, x = _make_number(random, depth)
        b, tight_b, y = _make_number(random, depth)
        op = random.choice(("=", "<>", "<", "<=", ">", ">="))
        tight_op = 4 if op in ("=", "<>") else 5
        known = x is not None and y is not None
        found = known and {
            "=": x == y, "<>": x != y, "<": known and x < y, "<=": known and x <= y,
            ">": known and x > y, ">=": known and x >= y,
        }[op]  # fmt: skip
        text = "%s%s%s" % (_in(a, tight, tight_op), op, _in(b, tight_b, tight_op + 1))
        return text, tight_op, found if known else None
    if kind == 5:
        a, tight, x = _make(random, depth - 1)
        return "NOT " + _in(a, tight, 3), 3, None if x is None else not x
    a, tight, x = _make(random, depth - 1)
    b, tight_b, y = _make(random, depth - 1)
    if kind == 6:
        found = False if x is False or y is False else None if None in (x, y) else True
        return "%s AND %s" % (_in(a, tight, 2), _in(b, tight_b, 3)), 2, found
    found = True if x is True or y is True else None if None in (x, y) else False
    return "%s OR %s" % (_in(a, tight, 1), _in(b, tight_b, 2)), 1, found


def _make_number(random, depth):
    kind = random.randint(0, 5 if depth else 2)
    if kind == 0:
        return "n", 9, None
    if kind < 3:
        value = random.randint(0, 5)
        return str(value), 9, value
    a, tight, x = _make_number(random, depth - 1)
    if kind == 3:
        return "- " + _in(a, tight, 8), 8, None if x is None else -x
    b, tight_b, y = _make_number(random, depth - 1)
    op = random.choice("+-*")
    tight_op = 7 if op == "*" else 6
    text = "%s %s %s" % (_in(a, tight, tight_op), op, _in(b, tight_b, tight_op + 1))
    if x is None or y is None:
        return text, tight_op, None
    return text, tight_op, x + y if op == "+" else x - y if op == "-" else x * y


def _in(text, tight, least):
    return text if tight >= least else "(%s)" % text


def test_random_selectors():
    random = seeded()
    for _ in range(300):
        text, _, expected = _make(random, 3)
        try:
            selector = Selector(text)
        except InvalidField as error:
            assert "more than" in error.text, text
            continue
        found = selector.matches({"t": True, "f": False}.get)
        assert found is (expected is True), (text, expected)
        if len(text) < 100:
            assert value_of(text, {"t": True, "f": False}) is expected, text


WORDS = (
    "a", "b", "'x'", "''", "1", "2.5", "TRUE", "(", ")", "(", ")", "AND", "OR", "NOT", "=", "<>",
    "<", ">=", "BETWEEN", "AND", "IN", "('x')", "LIKE", "'%_'", "ESCAPE", "'!'", "IS", "NULL",
    "+", "-", "*", "/", ",", "'", '"', "JMSType", "e", "!", "\0", "ä",
)  # fmt: skip


def test_random_words_are_selectors_or_refused():
    random = seeded()
    values = (None, True, False, 0, -1, 2**64 - 1, -(2**63), 2.5, "", "x", b"x", [], {})
    selectors = 0
    for _ in range(2000):
        text = " ".join([random.choice(WORDS) for _ in range(random.randint(1, 12))])
        try:
            selector = Selector(text)
        except InvalidField as error:
            assert "\n" not in error.text
            continue
        selectors += 1
        for _ in range(5):
            assert selector.matches(lambda name: random.choice(values)) in (True, False)
    assert selectors


def test_random_changes_are_selectors_or_refused():
    random = seeded()
    for _ in range(1000):
        text = random.choice(ARE)
        for _ in range(random.randint(1, 3)):
            i = random.randint(0, len(text))
            text = text[:i] + random.choice("('\")=<>e.0 \0%") + text[i + random.randint(0, 2) :]
        try:
            assert true(text) in (True, False)
        except InvalidField as error:
            assert error.text.startswith("selector: ")


# --- the values of messages ---


def section(code, value):
    return write_value(Described(Typed(0x53, code), value))


def loaded(octets):
    properties = Properties()
    properties.load(b"xx" + octets + b"yy", 2, 2 + len(octets))
    return properties


def test_a_message_without_sections():
    lookup = loaded(b"").lookup
    assert lookup("JMSDeliveryMode") == "NON_PERSISTENT" and lookup("JMSPriority") == 4
    for name in ("JMSMessageID", "JMSCorrelationID", "JMSTimestamp", "JMSType", "JMSXGroupID",
                 "JMSXGroupSeq", "JMSXUserID", "a"):  # fmt: skip
        assert lookup(name) is None, name
    assert Properties().lookup("a") is None


def test_headers_of_jms():
    octets = described(HEADER, True, Typed(0x50, 9)) + described(
        PROPERTIES, "ID:1", b"ann", "/queues/q", "room.1", None, "ID:0", None, None, None,
        Typed(0x83, 1700000000123), "group", uint(300),
    )  # fmt: skip
    lookup = loaded(octets).lookup
    assert lookup("JMSDeliveryMode") == "PERSISTENT" and lookup("JMSPriority") == 9
    assert lookup("JMSMessageID") == "ID:1" and lookup("JMSCorrelationID") == "ID:0"
    assert lookup("JMSTimestamp") == 1700000000123
    assert lookup("JMSType") == "room.1" and lookup("JMSXUserID") == "ann"
    assert lookup("JMSXGroupID") == "group" and lookup("JMSXGroupSeq") == 300
    selector = Selector("JMSPriority > 4 AND JMSDeliveryMode = 'PERSISTENT' AND JMSType LIKE 'r%'")
    assert selector.matches(lookup)


def test_ids_of_other_types():
    octets = bytes(range(16))
    for value, found in (
        (Typed(0x98, octets), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (Typed(0x80, 2**64 - 1), 2**64 - 1),
        (b"id", b"id"),
    ):
        lookup = loaded(described(PROPERTIES, value, None, None, None, None, value)).lookup
        assert lookup("JMSMessageID") == lookup("JMSCorrelationID") == found


def test_application_properties():
    octets = section(0x72, {Symbol("b"): 9}) + section(0x74, {
        "s": "x", "i": Typed(0x54, -1), "u": Typed(0x80, 2**64 - 1), "d": 2.5, "t": True,
        "nul": None, "y": Symbol("sym"), "c": Typed(0x73, "A"), "time": Typed(0x83, 5), "o": b"x",
        "uuid": Typed(0x98, bytes(16)), "größe": 3, "JMSPriority": 1, "l": [1],
    })  # fmt: skip
    properties = loaded(octets)
    for name, value in (
        ("s", "x"), ("i", -1), ("u", 2**64 - 1), ("d", 2.5), ("t", True), ("nul", None),
        ("y", "sym"), ("c", "A"), ("time", 5), ("o", b"x"), ("größe", 3), ("JMSPriority", 4),
        ("uuid", "00000000-0000-0000-0000-000000000000"), ("l", [1]), ("b", None), ("", None),
    ):  # fmt: skip
        assert properties.lookup(name) == value, name
    assert Selector("i < 0 AND y = 'sym' AND größe = 3 AND t AND l <> 1 IS NOT NULL").matches(
        properties.lookup
    )


def test_the_next_message_has_nothing_of_the_last():
    properties = loaded(
        described(HEADER, True, Typed(0x50, 9)) + section(0x72, {Symbol("x-basic-type"): "b"})
        + described(PROPERTIES, "id") + section(0x74, {"s": "x"})
    )  # fmt: skip
    lookup = properties.lookup
    assert lookup("s") == "x" and lookup("JMSType") == "b" and lookup("JMSMessageID") == "id"
    octets = described(HEADER, False) + described(PROPERTIES, None, b"ann")
    for end, user in ((0, None), (len(octets), "ann")):
        properties.load(octets, 0, end)
        assert lookup("s") is None and lookup("JMSType") is None
        assert lookup("JMSPriority") == 4 and lookup("JMSDeliveryMode") == "NON_PERSISTENT"
        assert lookup("JMSMessageID") is None and lookup("JMSXUserID") == user


def test_text_that_is_none_is_not_there():
    bad = b"\0\x53\x74\xc1\x07\x02\xa1\x01a\xa1\x01\xff"
    assert loaded(bad).lookup("a") is None
    assert loaded(described(PROPERTIES, None, b"\xff")).lookup("JMSXUserID") is None


def test_a_message_that_came_by_0_9_1():
    octets = to_v10(
        write_properties({
            "delivery_mode": 2, "priority": 7, "message_id": b"m", "type": b"alarm",
            "user_id": b"ann", "timestamp": 1700000000, "headers": {b"room": b"kitchen", b"n": 5},
        }), b"e", b"k",
    )  # fmt: skip
    lookup = loaded(octets).lookup
    assert lookup("JMSType") == "alarm" and lookup("JMSXUserID") == "ann"
    assert lookup("JMSMessageID") == "m" and lookup("JMSTimestamp") == 1700000000000
    assert lookup("JMSDeliveryMode") == "PERSISTENT" and lookup("JMSPriority") == 7
    assert lookup("n") == 5 and lookup("room") == "kitchen"
