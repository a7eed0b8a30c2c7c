"""Describes the C core to cffi: two headers are both the C interface and the cdef."""

import hashlib
from pathlib import Path

from cffi import FFI

SOURCE = Path(__file__).parent / "src"
FILES = sorted([*SOURCE.glob("*.c"), *SOURCE.glob("*.h")])


def source_digest() -> str:
    """Return the sha256 of every C file and header, by name and content.

    Compiled into the extension; a unit test compares it with the files, so that a stale
    extension cannot pass.
    """
    digest = hashlib.sha256()
    for path in FILES:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


ffibuilder = FFI()
for header in ("core.cdef.h", "log.cdef.h"):
    ffibuilder.cdef((SOURCE / header).read_text())
ffibuilder.cdef("char *cl_source_digest(void);")
ffibuilder.set_source(
    "corelane_native._core",
    f"""
    #include "core.h"
    static char *cl_source_digest(void) {{ return (char *)"{source_digest()}"; }}
    """,
    sources=[f"native/src/{path.name}" for path in FILES if path.suffix == ".c"],
    depends=[f"native/src/{path.name}" for path in FILES],
    include_dirs=["native/src"],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-UNDEBUG",  # assertions are on in production
        "-fvisibility=hidden",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Werror",
    ],
    extra_link_args=["-pthread"],
)
