#pragma once

// Listens at `path` (mode 0600, in place of what is there) and becomes `command` with the socket as descriptor 3. Returns only on failure.
int listen_and_exec(const char *path, char **command);
