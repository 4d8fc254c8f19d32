"""Short names for a board, which keeps every name it ever meets in RAM, once and for ever.

A name with one underscore in front is nobody's business outside of the package, so it may have any
other name there. So may an argument that nobody gives by name, and a constant in capitals. Names
that are never used in the same place become one. That spares a Pico W some 600 names, and with
them a doubling of MicroPython's table of names, which is 9 KB. Functions, classes
and constants that nobody has as attributes get names that the board has already, which spares it
the next doubling. Tracebacks of the board show the new names.
"""

import ast
import builtins
import functools
import gc
import io
import itertools
import re
import string
import tokenize

# Modules for the code on a board, which may give each argument by its name.
_FACES = re.compile(r"amqp_lite\.(node|local)|board\.(sensors|sht3x|\w+\.board)")
# Modules of which a program on the board may import anything.
_OPEN = re.compile(
    r"(?!amqp_lite\.).*|amqp_lite\.(node|local|log|errors|compat\w*|config|limits|checks|status)"
)
# Where names come from: what is always loaded.
_ALWAYS = re.compile(
    r"amqp_lite\.(broker\.(broker|delivery|message|queue)|engine|net\.reactor|v091\.\w+)"
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def shorten(sources):
    """*sources*, the text of all modules by name, with short names in place of long ones."""
    was_on = gc.isenabled()
    gc.disable()  # a million small objects, none of them garbage, take it half of the time
    try:
        return _shorten_arguments(_shorten_globals(_reuse_names(sources)))
    finally:
        for cache in (_parsed, _nodes, _names):
            cache.cache_clear()
        if was_on:
            gc.enable()


def _reuse_names(sources):
    """Functions, classes and constants get names of attributes of others."""
    trees = {module: _parsed(text) for module, text in sources.items()}
    own = set()
    others = {part for module in sources for part in module.split(".")}
    others.update(dir(builtins))
    spare = set()
    for module, tree in trees.items():
        is_open = _OPEN.fullmatch(module)
        if not is_open:
            own.update(_constants(tree))
            own.update(
                node.name for node in tree.body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("__")  # Python's own
            )  # fmt: skip
        for node in _nodes(tree):
            if isinstance(node, ast.Attribute):
                others.add(node.attr)
                if _ALWAYS.fullmatch(module) and not node.attr.startswith("_"):
                    spare.add(node.attr)
            elif isinstance(node, ast.keyword):
                others.add(node.arg)
            elif isinstance(node, ast.Constant):
                others.add(node.value)
            elif is_open and isinstance(node, (ast.Name, ast.alias)):
                others.add(node.id if isinstance(node, ast.Name) else node.name)
    tokens = {
        module: _names(text) for module, text in sources.items() if not _OPEN.fullmatch(module)
    }
    used = {module: {token.string for token in tokens[module]} for module in tokens}
    spare = sorted(spare)
    new = {}
    for name in sorted(own - others):
        places = [module for module in used if name in used[module]]
        free = (one for one in spare if not any(one in used[place] for place in places))
        found = next(free, name)
        new[name] = found
        for module in places:
            used[module].add(found)
    return {
        module: _rename(text, tokens[module], new) if module in tokens else text
        for module, text in sources.items()
    }


def _shorten_globals(sources):
    """Private names and constants, and what is private in a class.

    What is not bound in *sources*, an attribute of MicroPython's own, stays.
    """
    tokens = {module: _names(text) for module, text in sources.items()}
    bound = set()
    constants = set()
    theirs = set()
    for module, text in sources.items():
        tree = _parsed(text)
        bound.update(_bound(tree))
        if not _FACES.fullmatch(module):
            constants.update(_constants(tree))
        theirs.update(_theirs(tree, sources))
    constants -= theirs
    groups = _related(sources)
    where = {}
    taken = set()
    for module in sorted(sources):
        for token in tokens[module]:
            name = token.string
            taken.add(name)
            if name in constants or name in bound and _is_private(name):
                where.setdefault(name, set()).add(groups[module])
    # A constant with an underscore in front is nothing that MicroPython lets others import.
    new = _share({name: where[name] for name in where if name in constants}, taken, "")
    new.update(_share({name: where[name] for name in where if name not in constants}, taken, "_"))
    return {module: _rename(text, tokens[module], new) for module, text in sources.items()}


def _share(where, taken, prefix):
    """A new name for each one in *where*; two have the same when they are nowhere together."""
    short = [name for name, _ in zip(_fresh(taken, prefix), where)]
    there = {}  # the new names in each place
    new = {}
    for name in sorted(where, key=lambda name: (-len(where[name]), name)):
        used = set().union(*(there.setdefault(place, set()) for place in where[name]))
        new[name] = next(one for one in short if one not in used)
        for place in where[name]:
            there[place].add(new[name])
    return new


def _constants(tree):
    """The names in capitals that the module *tree* gives to others."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and re.fullmatch("[A-Z][A-Z_]+", target.id):
                    yield target.id


def _is_private(name):
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def _fresh(taken, prefix="_"):
    """Ever longer names that are not *taken*."""
    letters = string.ascii_lowercase if prefix else string.ascii_uppercase
    for length in itertools.count(1):
        for some in itertools.product(letters, repeat=length):
            name = prefix + "".join(some)
            if name not in taken:
                yield name


def _bound(tree):
    """Every name that *tree* gives a meaning to."""
    for node in _nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            own = getattr(node, "level", 0)  # else the other's name, which is not ours to change
            yield from (alias.asname or (own and alias.name) or "" for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _theirs(tree, sources):
    """The names that *tree* has from modules which are not among *sources*."""
    ours = {module.partition(".")[0] for module in sources}
    modules = set()
    for node in _nodes(tree):
        if isinstance(node, ast.ImportFrom):
            if not node.level and node.module.partition(".")[0] not in ours:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            modules.update(alias.asname or alias.name for alias in node.names)
    for node in _nodes(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules:
                yield node.attr


def _related(sources):
    """By module: the same for all whose classes inherit from each other's, which share names."""
    group = {module: module for module in sources}
    for module, text in sources.items():
        tree = _parsed(text)
        bases = {
            base.id for node in _nodes(tree) if isinstance(node, ast.ClassDef)
            for base in node.bases if isinstance(base, ast.Name)
        }  # fmt: skip
        for node in _nodes(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                if bases & {alias.asname or alias.name for alias in node.names}:
                    for other in sources:
                        if ("." + other).endswith("." + node.module):
                            old, new = group[other], group[module]
                            group = {m: new if g == old else g for m, g in group.items()}
    return group


def _shorten_arguments(sources):
    """Names that mean nothing but arguments become those which private names have elsewhere."""
    trees = {module: _parsed(text) for module, text in sources.items()}
    only = _only_arguments(trees)
    return {
        module: _rename_arguments(text, trees[module], only) for module, text in sources.items()
    }


def _only_arguments(trees):
    """The names of arguments that are no names of anything else, and are not given by name."""
    arguments = set()
    others = {"self", *dir(builtins)}
    for module, tree in trees.items():
        own = others if _FACES.fullmatch(module) else arguments
        for node in _nodes(tree):
            if isinstance(node, ast.arg):
                own.add(node.arg)
            elif isinstance(node, ast.Attribute):
                others.add(node.attr)
            elif isinstance(node, ast.keyword):
                others.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                others.add(node.name)
            elif isinstance(node, ast.alias):
                others.update((node.asname, *node.name.split(".")))
            elif isinstance(node, (ast.Global, ast.Nonlocal)):
                others.update(node.names)
            elif isinstance(node, ast.JoinedStr):  # its inside is no token of its own
                others.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        others.update(
            node.id for node in _outside(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )  # fmt: skip
    return {name for name in arguments - others if not name.startswith("_")}


def _outside(tree):
    """All nodes of *tree* that are in no function; of functions only their outermost ones."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, _FUNCTIONS):
            yield from _outside(node)


def _rename_arguments(text, tree, only):
    tokens = _names(text)
    # Of the whole module: a constant of that name would take an argument's place.
    taken = {token.string for token in tokens}
    fresh = [name for name, _ in zip(_fresh(taken), only)]
    new = {}  # by token
    for function in _outside(tree):
        if not isinstance(function, _FUNCTIONS):
            continue
        found = [node.arg for node in ast.walk(function) if isinstance(node, ast.arg)]
        found = dict.fromkeys(name for name in found if name in only)
        short = dict(zip(found, fresh))
        begin = function.lineno, function.col_offset
        end = function.end_lineno, function.end_col_offset
        for token in tokens:
            if begin <= token.start < end and token.string in short:
                new[token] = short[token.string]
    return _replace(text, new)


# The same modules are looked at many times.
@functools.lru_cache(maxsize=None)
def _parsed(text):
    return ast.parse(text)


@functools.lru_cache(maxsize=None)
def _nodes(tree):
    return list(ast.walk(tree))


@functools.lru_cache(maxsize=None)
def _names(text):
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token for token in tokens if token.type == tokenize.NAME]


def _rename(text, tokens, new):
    return _replace(text, {token: new[token.string] for token in tokens if token.string in new})


def _replace(text, new):
    """*text* with the texts *new* in place of the tokens they are for, given in order."""
    lines = text.splitlines(keepends=True)
    for token in reversed(new):
        row, start = token.start
        line = lines[row - 1]
        lines[row - 1] = line[:start] + new[token] + line[token.end[1] :]
    return "".join(lines)
