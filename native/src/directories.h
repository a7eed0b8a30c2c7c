/* Making directories, and making what is in them durable. */
#ifndef DIRECTORIES_H
#define DIRECTORIES_H

#include "core.h"

/* Make the directories that lead to path (and path itself, with whole); existing ones are fine. */
int cl_directories_make(int directory, const char *path, bool whole);

/* fsync every directory that leads to path, innermost first: a new file is durable only when its
 * name is (fsync(2)). For a relative path up to and with `directory`, else up to the root. */
int cl_directories_sync(int directory, const char *path);

#endif
