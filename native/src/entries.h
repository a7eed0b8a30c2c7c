/* One row of an .entries file per raft entry; the layout is specified in storage/FORMAT.md. */
#ifndef ENTRIES_H
#define ENTRIES_H

#include "core.h"

typedef struct {
    int64_t next_offset;
    uint64_t end_position;
    int64_t max_timestamp; /* the running maximum of the segment, so it is sorted */
    uint32_t term;
    uint8_t kind;
    uint8_t zero[3];
} cl_entry_row;

#define CL_ENTRY_ROW_BYTES 32u
static_assert(sizeof(cl_entry_row) == CL_ENTRY_ROW_BYTES, "FORMAT.md says 32");

#define CL_COLUMN_NEXT_OFFSET 0
#define CL_COLUMN_MAX_TIMESTAMP 2

bool cl_entries_column_ok(int column);

/* Whether the row (at any alignment) is at or after what is searched for. */
bool cl_entries_row_matches(const uint8_t *row, int column, int64_t key);

/* The first of row_count sorted rows that matches, or row_count. */
uint64_t cl_entries_first(const uint8_t *rows, uint64_t row_count, int column, int64_t key);

#endif
