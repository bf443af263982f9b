// Absolute paths for what clients call a file.
#pragma once
#include <limits.h>

// Without links, `.` and `..`; what does not exist has its names taken as they are. 0 or an errno.
int sftp_resolve(const char *path, char into[PATH_MAX]);
// The same after `~` and `~user` at its start.
int sftp_expand(const char *path, const char *home, char into[PATH_MAX]);
