// What the agent itself and its work on files (file-work.h) do with files, inside the sandbox's root (see root_enter). Paths mean what they would to a program there.
#pragma once
#include "codec.h"

struct stat;
struct entry files_describe(const struct stat *s);
// A regular file to read, opened so that a fifo or device in its place cannot block. -1 with errno.
int files_open_regular(const char *path);
// Every directory above the last component. 0 or an errno.
int files_make_parents(const char *path);
// 0 or an errno.
int files_write_all(int fd, const void *bytes, size_t length);
// A new file in place of whatever has the name; links are replaced, not followed.
int files_replace(const char *path, const void *bytes, size_t length, uint32_t mode);
