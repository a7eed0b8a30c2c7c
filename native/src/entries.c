/* Binary search in the rows of an .entries file. */
#include "entries.h"

bool cl_entries_column_ok(int column)
{
    return column == CL_COLUMN_NEXT_OFFSET || column == CL_COLUMN_MAX_TIMESTAMP;
}

bool cl_entries_row_matches(const uint8_t *row, int column, int64_t key)
{
    assert(row != NULL);
    assert(cl_entries_column_ok(column));
    cl_entry_row entry;
    memcpy(&entry, row, sizeof entry);
    if (column == CL_COLUMN_NEXT_OFFSET)
        return entry.next_offset > key;
    return entry.max_timestamp >= key;
}

uint64_t cl_entries_first(const uint8_t *rows, uint64_t row_count, int column, int64_t key)
{
    assert(rows != NULL || row_count == 0);
    uint64_t low = 0, high = row_count; /* rows below low fail, rows from high on match */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (cl_entries_row_matches(rows + middle * CL_ENTRY_ROW_BYTES, column, key))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int64_t cl_entries_search(uint64_t rows_address, uint64_t row_count, int column, int64_t key)
{
    if (!cl_entries_column_ok(column))
        return -EINVAL;
    return (int64_t)cl_entries_first(cl_pointer(rows_address), row_count, column, key);
}
