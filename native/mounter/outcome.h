#pragma once
#include <errno.h>
#include <stdint.h>

// How an operation ended. `step` names what failed and is a literal; `words` is what the kernel's mount context said.
struct outcome {
  int error;
  uint64_t value;
  const char *step;
  char words[160];
};

static inline struct outcome done(uint64_t value) { return (struct outcome){.value = value}; }
// `errno` as it stands.
static inline struct outcome failed(const char *step) { return (struct outcome){.error = errno ? errno : EIO, .step = step}; }
static inline struct outcome refused(int error, const char *step) { return (struct outcome){.error = error, .step = step}; }
