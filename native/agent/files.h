// File requests, inside the sandbox's root (see root_enter). Paths mean what they would to a program there.
#pragma once
#include "codec.h"

struct stat;
struct entry files_describe(const struct stat *s);
// A regular file, opened so that a fifo or device in its place cannot block. -1 with errno.
int files_open_regular(const char *path, int flags, uint32_t mode);
// Every directory above the last component. 0 or an errno.
int files_make_parents(const char *path);
void files_stat(uint32_t request, const char *path, struct bytes *out);
void files_list(uint32_t request, const char *path, uint32_t skip, uint32_t most, struct bytes *out);
void files_read(uint32_t request, const char *path, uint64_t offset, uint32_t most, struct bytes *out);
int files_write(const char *path, uint32_t mode, uint8_t flags, uint64_t offset, struct blob bytes);
int files_mkdir(const char *path, uint32_t mode, bool parents);
void files_remove(uint32_t request, const char *path, bool recursive, struct bytes *out);
// A new file in place of whatever has the name; links are replaced, not followed.
int files_replace(const char *path, const void *bytes, size_t length, uint32_t mode);
