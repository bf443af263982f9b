#define _GNU_SOURCE
#include "attributes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "layer-request.h"

enum {
  NAMES_MAX = 64 << 10,  // XATTR_LIST_MAX of the kernel
  SHORTEST = 6,          // "user.x"
  ATTRIBUTES_MOST = LAYER_ATTRIBUTES_MAX / SHORTEST + 1,
  EACH = 5,  // length of name and of value
};

static char list[NAMES_MAX];
static const char *kept[ATTRIBUTES_MOST];
static uint8_t encoded[LAYER_ATTRIBUTES_MAX + ATTRIBUTES_MOST * EACH];

// Such an entry's content or place is not in this layer, or it hides what is below in a way that only the kernel that made it knows.
static bool tied_to_lower(const char *name) {
  static const char *const names[] = {"trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.overlay.whiteout"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(name, names[i]) == 0) return true;
  }
  return false;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void put_number(uint8_t **at, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; i++) *(*at)++ = (uint8_t)(value >> 8 * i);
}

static int fail(struct attributes *attributes, const char *why, int error) {
  attributes->why = why;
  return error;
}

int attributes_read(const char *file, struct attributes *attributes) {
  *attributes = (struct attributes){.bytes = encoded};
  ssize_t length = llistxattr(file, list, sizeof list);
  if (length < 0) return errno == ENOTSUP ? 0 : fail(attributes, "list attributes", errno);
  uint32_t count = 0;
  size_t total = 0;
  for (const char *name = list; name < list + length; name += strlen(name) + 1) {
    if (tied_to_lower(name)) return fail(attributes, name, EOPNOTSUPP);
    if (!layer_attribute_kept(name, strlen(name))) continue;
    total += strlen(name);
    if (total > LAYER_ATTRIBUTES_MAX) return fail(attributes, "an entry may have 64 KiB of attributes", E2BIG);
    kept[count++] = name;
  }
  if (count > 1) qsort(kept, count, sizeof *kept, by_name);
  uint8_t *at = encoded;
  for (uint32_t i = 0; i < count; i++) {
    const size_t name_length = strlen(kept[i]);
    uint8_t *value = at + 1 + name_length + 4;
    // Room for the names still to come is not given away, so the buffer holds whatever is within the limit.
    ssize_t size = lgetxattr(file, kept[i], value, LAYER_ATTRIBUTES_MAX - total ? LAYER_ATTRIBUTES_MAX - total : 1);
    if (size < 0 && errno == ENODATA) {
      total -= name_length;
      continue;  // removed meanwhile
    }
    if (size < 0 && errno == ERANGE) return fail(attributes, "an entry may have 64 KiB of attributes", E2BIG);
    if (size < 0) return fail(attributes, "read attributes", errno);
    total += (size_t)size;
    if (total > LAYER_ATTRIBUTES_MAX) return fail(attributes, "an entry may have 64 KiB of attributes", E2BIG);
    if (strcmp(kept[i], "trusted.overlay.opaque") == 0 && (size != 1 || *value != 'y')) return fail(attributes, kept[i], EOPNOTSUPP);
    put_number(&at, (uint32_t)name_length, 1);
    memcpy(at, kept[i], name_length);
    at += name_length;
    put_number(&at, (uint32_t)size, 4);
    at += size;
    attributes->count++;
  }
  attributes->length = (size_t)(at - encoded);
  return 0;
}
