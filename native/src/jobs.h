/* What a worker's thread does for each kind of job. */
#ifndef JOBS_H
#define JOBS_H

#include "files.h"

#define CL_PATHS_PER_JOB_MAX 100000u

typedef struct {
    cl_job words;
    const char *paths; /* path_count strings, one after another */
    uint32_t path_count;
    const cl_part *parts;
    uint32_t part_count;
    const uint8_t *zeros; /* CL_ZEROS_BYTES, block-aligned */
} cl_task;

#define CL_ZEROS_BYTES (256u * 1024u)

/* Perform task and fill done. */
void cl_task_run(cl_files *files, const cl_task *task, cl_done *done);

#endif
