#pragma once
#include <stdio.h>
#include <stdlib.h>

// Named when a check fails.
extern const char *check_what;

// Ends the test with the place and the condition.
#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s: %s:%d: not so: %s\n", check_what, __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)
