"""The codecs of record batches, as the wire layer has them."""

from corelane.wire.compression import Compression, CompressionError, compress, decompress

__all__ = ["Compression", "CompressionError", "compress", "decompress"]
