/* What every C file of the core includes: the interface, and the few helpers all of them share.
 *
 * The whole core is little-endian and 64-bit; both are asserted here once. */
#ifndef CORE_H
#define CORE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core.cdef.h"
#include "log.cdef.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold numbers as we do");
static_assert(sizeof(void *) == 8, "addresses travel as uint64_t");

#define CL_BLOCK_BYTES 4096u

/* Addresses come from Python as integers. */
static inline uint8_t *cl_pointer(uint64_t address)
{
    return (uint8_t *)(uintptr_t)address;
}

static inline uint64_t cl_round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static inline uint16_t cl_be16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t cl_be32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t cl_be64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap64(value);
}

static inline void cl_put_be16(uint8_t *to, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(to, &value, sizeof value);
}

static inline void cl_put_be32(uint8_t *to, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof value);
}

static inline void cl_put_be64(uint8_t *to, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof value);
}

/* Copy size bytes and return the CRC-32C of them, continuing crc: one pass over the source. */
uint32_t cl_crc32c_copy(uint32_t crc, uint8_t *to, const uint8_t *from, size_t size);

#endif
