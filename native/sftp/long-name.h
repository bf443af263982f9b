// The line that clients show of a file.
#pragma once
#include <sys/stat.h>
#include <time.h>

enum { LONG_NAME_BYTES = 512 };

// As `ls -l` has it; `name` is at most NAME_MAX bytes, of any kind.
void long_name(char line[LONG_NAME_BYTES], const char *name, const struct stat *s, time_t now);
