#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accounts.h"

static int join(char into[PATH_MAX], const char *head, const char *tail) {
  return snprintf(into, PATH_MAX, "%s/%s", head, tail) < PATH_MAX ? 0 : ENAMETOOLONG;
}

// Where the last component before `end` begins, without the slashes in front of it.
static size_t step_back(const char *path, size_t end) {
  while (end > 0 && path[end - 1] == '/') end--;
  while (end > 0 && path[end - 1] != '/') end--;
  while (end > 0 && path[end - 1] == '/') end--;
  return end;
}

// One component more on an absolute path without a slash at its end.
static int append(char path[PATH_MAX], const char *name, size_t length) {
  size_t used = strlen(path);
  if (used == 1) used = 0;
  if (length == 0 || (length == 1 && name[0] == '.')) return 0;
  if (length == 2 && name[0] == '.' && name[1] == '.') {
    while (used > 0 && path[--used] != '/') continue;
    path[used] = 0;
    if (used == 0) strcpy(path, "/");
    return 0;
  }
  if (used + 1 + length >= PATH_MAX) return ENAMETOOLONG;
  path[used] = '/';
  memcpy(path + used + 1, name, length);
  path[used + 1 + length] = 0;
  return 0;
}

int sftp_resolve(const char *path, char into[PATH_MAX]) {
  char whole[PATH_MAX], folder[PATH_MAX];
  if (*path != '/' && !getcwd(folder, sizeof folder)) return errno;
  int error = *path == '/' ? join(whole, "", path + 1) : join(whole, folder, path);
  if (error) return error;
  // The longest part that exists decides; at the latest the root does.
  size_t head = strlen(whole);
  for (bool found = false; !found;) {
    char cut = whole[head];
    whole[head] = 0;
    found = realpath(head ? whole : "/", into) != NULL;
    error = errno;
    whole[head] = cut;
    if (found) break;
    if ((error != ENOENT && error != ENOTDIR) || head == 0) return error;
    head = step_back(whole, head);
  }
  for (const char *name = whole + head; *name;) {
    size_t length = strcspn(name, "/");
    error = append(into, name, length);
    if (error) return error;
    name += length;
    if (*name) name++;
  }
  return 0;
}

int sftp_expand(const char *path, const char *home, char into[PATH_MAX]) {
  char user[ACCOUNT_NAME_BYTES], folder[PATH_MAX], whole[PATH_MAX];
  if (*path != '~') return sftp_resolve(path, into);
  size_t length = strcspn(++path, "/");
  if (length >= sizeof user) return ENOENT;
  memcpy(user, path, length);
  user[length] = 0;
  int error = length ? account_home(user, folder) : 0;
  if (!error) error = join(whole, length ? folder : home, path + length + (path[length] == '/'));
  return error ? error : sftp_resolve(whole, into);
}
