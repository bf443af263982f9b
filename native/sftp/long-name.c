#define _GNU_SOURCE
#include "long-name.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "accounts.h"

static char type_letter(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFIFO: return 'p';
    case S_IFSOCK: return 's';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    default: return '-';
  }
}

static void mode_words(char words[11], mode_t mode) {
  words[0] = type_letter(mode);
  for (int i = 0; i < 9; i++) words[1 + i] = mode & (0400u >> i) ? "rwx"[i % 3] : '-';
  if (mode & S_ISUID) words[3] = mode & S_IXUSR ? 's' : 'S';
  if (mode & S_ISGID) words[6] = mode & S_IXGRP ? 's' : 'S';
  if (mode & S_ISVTX) words[9] = mode & S_IXOTH ? 't' : 'T';
  words[10] = 0;
}

void long_name(char line[LONG_NAME_BYTES], const char *name, const struct stat *s, time_t now) {
  static const time_t half_a_year = 365 * 24 * 3600 / 2;
  char mode[11], date[32], user[ACCOUNT_NAME_BYTES];
  struct tm local;
  mode_words(mode, s->st_mode);
  bool recent = s->st_mtime <= now && s->st_mtime > now - half_a_year;
  if (!localtime_r(&s->st_mtime, &local) || !strftime(date, sizeof date, recent ? "%b %e %H:%M" : "%b %e  %Y", &local)) strcpy(date, "?");
  snprintf(user, sizeof user, "%s", account_name(ACCOUNT_USER, s->st_uid));
  snprintf(line, LONG_NAME_BYTES, "%s %3lu %-8s %-8s %8llu %s %.*s", mode, (unsigned long)s->st_nlink, user, account_name(ACCOUNT_GROUP, s->st_gid),
           (unsigned long long)s->st_size, date, NAME_MAX, name);
}
