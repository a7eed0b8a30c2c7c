"""What can be wrong with bytes from outside."""


class DecodeError(ValueError):
    """Bytes are not a message of the version they claim to be; says what is wrong."""


class DecompressError(ValueError):
    """A batch's records cannot be decompressed, or would grow beyond what is allowed."""
