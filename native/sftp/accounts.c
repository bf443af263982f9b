#define _GNU_SOURCE
#include "accounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KNOWN_MAX = 32, FILE_BYTES_MAX = 1 << 20, FIELDS = 7 };

struct known {
  bool used;
  uint32_t id;
  char name[ACCOUNT_NAME_BYTES];
};

static struct known known[2][KNOWN_MAX];
static unsigned next[2];

// NULL when there is no such file, or something that is none.
static FILE *open_accounts(const char *path) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  struct stat s;
  if (fd < 0) return NULL;
  FILE *file = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size <= FILE_BYTES_MAX ? fdopen(fd, "r") : NULL;
  if (!file) close(fd);
  return file;
}

// Cuts the next line into its fields, between colons (passwd(5), group(5)). A line too long for `line` is cut short, and what remains of it is no account.
static bool next_account(FILE *file, char line[1024], char *fields[FIELDS]) {
  if (!fgets(line, 1024, file)) return false;
  line[strcspn(line, "\n")] = 0;
  for (int i = 0; i < FIELDS; i++) {
    fields[i] = line;
    line += strcspn(line, ":");
    if (*line) *line++ = 0;
  }
  return true;
}

static bool find_name(enum account_kind kind, uint32_t id, char name[ACCOUNT_NAME_BYTES]) {
  char line[1024], *fields[FIELDS], digits[12];
  bool found = false;
  FILE *file = open_accounts(kind == ACCOUNT_USER ? "/etc/passwd" : "/etc/group");
  if (!file) return false;
  snprintf(digits, sizeof digits, "%u", id);
  while (!found && next_account(file, line, fields)) {
    if (strcmp(fields[2], digits) != 0 || !*fields[0] || strlen(fields[0]) >= ACCOUNT_NAME_BYTES) continue;
    strcpy(name, fields[0]);
    found = true;
  }
  fclose(file);
  return found;
}

const char *account_name(enum account_kind kind, uint32_t id) {
  for (int i = 0; i < KNOWN_MAX; i++) {
    if (known[kind][i].used && known[kind][i].id == id) return known[kind][i].name;
  }
  struct known *entry = &known[kind][next[kind]++ % KNOWN_MAX];
  entry->used = true;
  entry->id = id;
  if (!find_name(kind, id, entry->name)) snprintf(entry->name, sizeof entry->name, "%u", id);
  return entry->name;
}

void accounts_forget(void) { memset(known, 0, sizeof known); }

int account_home(const char *user, char home[PATH_MAX]) {
  char line[1024], *fields[FIELDS];
  int error = ENOENT;
  FILE *file = open_accounts("/etc/passwd");
  if (!file) return error;
  while (error && next_account(file, line, fields)) {
    if (strcmp(fields[0], user) != 0 || *fields[5] != '/') continue;
    strcpy(home, fields[5]);
    error = 0;
  }
  fclose(file);
  return error;
}
