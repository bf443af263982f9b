// What the worker says, besides data and errors (wire.h).
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "attributes.h"
#include "wire.h"

struct told {
  uint8_t kind;
  uint16_t mode;
  uint32_t uid, gid, links;
  uint64_t size, inode;
  int64_t mtime_ns, ctime_ns;
  struct span path, target;
};

void tell_ready(void);
// Of a walk, or with `change` a path that is new or has changed.
void tell_present(const struct told *told, const struct attributes *attributes, bool change);
void tell_removed(struct span path);
void tell_hole(uint32_t index, uint64_t length);
void tell_end(uint32_t index, const struct stat *st);
void tell_missing(uint32_t index);
void tell_done(void);
