"""Addresses, copies and checksums of memory."""

from corelane_native._core import ffi, lib

Readable = bytes | bytearray | memoryview
"""A contiguous buffer."""


def address_of(buffer: Readable) -> int:
    """Return the address of a buffer's first byte; valid while the caller keeps it alive."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def bytes_at(address: int, size_bytes: int) -> bytes:
    """Return a copy of memory; the caller vouches that all of it is readable."""
    assert size_bytes >= 0
    if size_bytes == 0:
        return b""
    assert address > 0
    return ffi.buffer(ffi.cast("char *", address), size_bytes)[:]


def view_at(address: int, size_bytes: int) -> memoryview:
    """Return memory itself; the caller vouches that it is readable as long as the view is used."""
    assert size_bytes > 0
    assert address > 0
    return memoryview(ffi.buffer(ffi.cast("char *", address), size_bytes))


def crc32c(data: Readable, crc: int = 0) -> int:
    """Return the CRC-32C (Castagnoli) of *data*, continuing from *crc*."""
    if isinstance(data, bytes):
        return lib.cl_crc32c(crc, data, len(data))
    view = ffi.from_buffer(data)
    return lib.cl_crc32c(crc, view, len(view))


def crc32c_portable(portable: bool) -> bool:
    """Use the portable CRC code (for tests) or the best this CPU has; return which it is now."""
    return lib.cl_crc32c_select(int(portable)) == 1


def source_digest() -> str:
    """Return the digest of the C sources this extension was built from."""
    return ffi.string(lib.cl_source_digest()).decode()
