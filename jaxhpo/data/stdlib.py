"""The embedded corpus: the source text of the running Python's own standard library."""

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from jaxhpo.data.documents import Document
from jaxhpo.errors import UsageError

# Modules of Python 3.11 to 3.13 that distributions don't split off (tkinter, ensurepip, idlelib,
# distutils), without tables (encodings). Text differs between versions: the fingerprint says so.
MODULES = """
    __future__ _aix_support _collections_abc _compat_pickle _compression _markupbase _osx_support
    _py_abc _pydecimal _pyio _strptime _threading_local _weakrefset abc argparse ast asyncio base64
    bdb bisect bz2 cProfile calendar cmd code codecs codeop collections colorsys compileall
    concurrent configparser contextlib contextvars copy copyreg csv ctypes curses dataclasses
    datetime dbm decimal difflib dis doctest email enum filecmp fileinput fnmatch fractions ftplib
    functools genericpath getopt getpass gettext glob graphlib gzip hashlib heapq hmac html http
    imaplib importlib inspect io ipaddress json keyword linecache locale logging lzma mailbox
    mimetypes modulefinder multiprocessing netrc ntpath nturl2path numbers opcode operator optparse
    os pathlib pdb pickle pickletools pkgutil platform plistlib poplib posixpath pprint profile
    pstats pty py_compile pyclbr pydoc pydoc_data queue quopri random re reprlib rlcompleter runpy
    sched secrets selectors shelve shlex shutil signal site smtplib socket socketserver sqlite3
    sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess
    symtable sysconfig tabnanny tarfile tempfile textwrap threading timeit token tokenize tomllib
    trace traceback tracemalloc tty types typing unittest urllib uuid warnings wave weakref
    webbrowser wsgiref xml xmlrpc zipapp zipfile zipimport zoneinfo
"""
TESTS = {"test", "tests"}
LEAST_FILES = 100


def documents(root: Path | None = None) -> Sequence[Document]:
    """One document per source file, by name; about 8 MB. Modules that are absent are skipped.

    Raises UsageError where Python comes without its sources.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for name in MODULES.split():
        files += [root / f"{name}.py", *(root / name).rglob("*.py")]
    names = {file.relative_to(root).as_posix(): file for file in files if file.is_file()}
    texts = [
        Document(name, file)
        for name, file in sorted(names.items())
        if not TESTS & set(file.relative_to(root).parts) and file.stat().st_size
    ]
    if len(texts) < LEAST_FILES:
        raise UsageError(
            f"data.source=stdlib: this Python has {len(texts)} of its source files under {root}; "
            "allowed: data.source synthetic, a text file or a folder"
        )
    return texts
