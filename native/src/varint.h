/* Varints as Kafka has them: base 128, least significant group first; signed ones zigzag. */
#ifndef VARINT_H
#define VARINT_H

#include "core.h"

#define CL_VARINT_BYTES_MAX 5
#define CL_VARLONG_BYTES_MAX 10

/* Read an unsigned varint of at most bytes_max bytes from *at, never reading from end on.
 * Returns false, with *at somewhere up to end, if it is cut, too long, or has more than 64 bits. */
static inline bool cl_uvarint(const uint8_t **at, const uint8_t *end, int bytes_max,
                              uint64_t *value)
{
    uint64_t result = 0;
    for (int count = 0; count < bytes_max; count++) {
        if (*at >= end)
            return false;
        uint8_t byte = *(*at)++;
        if (count == 9 && byte > 1)
            return false;
        result |= (uint64_t)(byte & 0x7f) << (7 * count);
        if (byte < 0x80) {
            *value = result;
            return true;
        }
    }
    return false;
}

static inline int64_t cl_zigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* A signed varint that must fit 32 bits. */
static inline bool cl_varint(const uint8_t **at, const uint8_t *end, int32_t *value)
{
    uint64_t raw;
    if (!cl_uvarint(at, end, CL_VARINT_BYTES_MAX, &raw) || raw > UINT32_MAX)
        return false;
    *value = (int32_t)cl_zigzag(raw);
    return true;
}

static inline bool cl_varlong(const uint8_t **at, const uint8_t *end, int64_t *value)
{
    uint64_t raw;
    if (!cl_uvarint(at, end, CL_VARLONG_BYTES_MAX, &raw))
        return false;
    *value = cl_zigzag(raw);
    return true;
}

#endif
