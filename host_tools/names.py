"""Short private names for a board, which keeps every name it ever meets in RAM, once and for ever.

A name with one underscore in front is nobody's business outside of the package, so it may have any
other name there. Modules whose classes are unrelated get the same few names again and again: that
spares a Pico W about 350 names, and with them the next doubling of MicroPython's table of names.
Tracebacks of the board show the short names, in files with their full ones.
"""

import ast
import io
import itertools
import string
import tokenize


def shorten(sources):
    """*sources*, the text of all modules by name, with short names in place of private ones.

    What is private and not bound in *sources*, an attribute of MicroPython's own, stays.
    """
    tokens = {}
    bound = set()
    for module, text in sources.items():
        tokens[module] = list(tokenize.generate_tokens(io.StringIO(text).readline))
        bound.update(_bound(ast.parse(text)))
    groups = _related(sources)
    where = {}
    taken = set()
    for module in sorted(sources):
        for token in tokens[module]:
            if token.type == tokenize.NAME:
                taken.add(token.string)
                if token.string in bound and _is_private(token.string):
                    where.setdefault(token.string, set()).add(groups[module])
    fresh = (name for name in _short_names() if name not in taken)
    shared = {name: next(fresh) for name in where if len(where[name]) > 1}
    again = list(itertools.islice(fresh, len(where)))
    new = {group: dict(shared) for group in groups.values()}
    used = dict.fromkeys(new, 0)
    for name, (group, *others) in where.items():
        if not others:
            new[group][name] = again[used[group]]
            used[group] += 1
    return {
        module: _rename(text, tokens[module], new[groups[module]])
        for module, text in sources.items()
    }


def _is_private(name):
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def _short_names():
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "_" + "".join(letters)


def _bound(tree):
    """Every name that *tree* gives a meaning to."""
    for node in ast.walk(tree):
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


def _related(sources):
    """By module: the same for all whose classes inherit from each other's, which share names."""
    group = {module: module for module in sources}
    for module, text in sources.items():
        tree = ast.parse(text)
        bases = {
            base.id for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
            for base in node.bases if isinstance(base, ast.Name)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                if bases & {alias.asname or alias.name for alias in node.names}:
                    for other in sources:
                        if ("." + other).endswith("." + node.module):
                            old, new = group[other], group[module]
                            group = {m: new if g == old else g for m, g in group.items()}
    return group


def _rename(text, tokens, new):
    lines = text.splitlines(keepends=True)
    for token in reversed(tokens):
        if token.type == tokenize.NAME and token.string in new:
            row, start = token.start
            line = lines[row - 1]
            lines[row - 1] = line[:start] + new[token.string] + line[token.end[1] :]
    return "".join(lines)
