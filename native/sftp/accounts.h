// Names of users and groups, out of the sandbox's /etc/passwd and /etc/group themselves: the C library would load code from there to look further.
#pragma once
#include <limits.h>
#include <stdint.h>

enum { ACCOUNT_NAME_BYTES = 33 };

enum account_kind { ACCOUNT_USER, ACCOUNT_GROUP };

// The name, or the number in digits. Good until the next call.
const char *account_name(enum account_kind kind, uint32_t id);
// What was looked up is looked up anew.
void accounts_forget(void);
// The home of a user; 0 or ENOENT.
int account_home(const char *user, char home[PATH_MAX]);
