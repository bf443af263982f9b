#include "layer-request.h"

#include <string.h>

uint64_t layer_read_number(struct layer_reader *r, int bytes) {
  if (r->end - r->at < bytes) {
    r->bad = true;
    r->at = r->end;
    return 0;
  }
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint64_t)r->at[i] << 8 * i;
  r->at += bytes;
  return value;
}

static struct span read_bytes(struct layer_reader *r, size_t length) {
  if ((size_t)(r->end - r->at) < length) r->bad = true;
  if (r->bad) return (struct span){r->end, 0};
  r->at += length;
  return (struct span){r->at - length, length};
}

struct span layer_read_span(struct layer_reader *r) {
  size_t length = (size_t)layer_read_number(r, 2);
  return read_bytes(r, length);
}

static bool name_good(const uint8_t *name, size_t length) {
  if (length < 1 || length > LAYER_NAME_MAX) return false;
  return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

bool layer_path_good(struct span path) {
  if (path.length < 1 || path.length > LAYER_PATH_MAX || memchr(path.bytes, 0, path.length)) return false;
  const uint8_t *at = path.bytes, *end = at + path.length;
  for (;;) {
    const uint8_t *slash = memchr(at, '/', (size_t)(end - at));
    if (!name_good(at, (size_t)((slash ? slash : end) - at))) return false;
    if (!slash) return true;
    at = slash + 1;
    if (at == end) return false;
  }
}

bool layer_attribute_kept(const char *name, size_t length) {
  static const char *const kept[] = {"security.capability", "system.posix_acl_access", "system.posix_acl_default", "trusted.overlay.opaque"};
  if (length > LAYER_NAME_MAX || memchr(name, 0, length)) return false;
  if (length > 5 && memcmp(name, "user.", 5) == 0) return true;
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    if (strlen(kept[i]) == length && memcmp(kept[i], name, length) == 0) return true;
  }
  return false;
}

bool layer_next_attribute(struct layer_reader *r, uint32_t *left, struct attribute *attribute) {
  if (*left == 0 || r->bad) return false;
  --*left;
  size_t name_length = (size_t)layer_read_number(r, 1);
  attribute->name = read_bytes(r, name_length);
  size_t value_length = (size_t)layer_read_number(r, 4);
  attribute->value = read_bytes(r, value_length);
  return !r->bad;
}

static bool attributes_good(struct layer_reader *r, struct new_entry *entry) {
  const uint8_t *from = r->at;
  uint32_t left = entry->attribute_count;
  size_t total = 0;
  for (struct attribute a; layer_next_attribute(r, &left, &a);) {
    const char *name = (const char *)a.name.bytes;
    if (!layer_attribute_kept(name, a.name.length)) return false;
    if (memcmp(name, "trusted.", 8 < a.name.length ? 8 : a.name.length) == 0 && (a.value.length != 1 || *a.value.bytes != 'y')) return false;
    total += a.name.length + a.value.length;
    if (total > LAYER_ATTRIBUTES_MAX) return false;
  }
  entry->attributes = (struct span){from, (size_t)(r->at - from)};
  return !r->bad;
}

bool layer_decode_open(struct span payload, uint32_t *version, struct span *folder, struct span *only) {
  struct layer_reader r = layer_read(payload);
  *version = (uint32_t)layer_read_number(&r, 4);
  *folder = layer_read_span(&r);
  *only = r.at == r.end ? (struct span){r.end, 0} : layer_read_span(&r);
  if (r.bad || r.at != r.end || folder->length > LAYER_PATH_MAX) return false;
  if (only->length && (!layer_path_good(*only) || memchr(only->bytes, '/', only->length))) return false;
  if (folder->length == 0) return true;
  return folder->bytes[0] == '/' && !memchr(folder->bytes, 0, folder->length);
}

bool layer_next_path(struct layer_reader *r, struct span *path) {
  if (r->bad || r->at == r->end) return false;
  *path = layer_read_span(r);
  if (!layer_path_good(*path)) r->bad = true;
  return !r->bad;
}

bool layer_decode_entry(struct span payload, struct new_entry *entry) {
  struct layer_reader r = layer_read(payload);
  entry->kind = (uint8_t)layer_read_number(&r, 1);
  entry->mode = (uint16_t)layer_read_number(&r, 2);
  entry->uid = (uint32_t)layer_read_number(&r, 4);
  entry->gid = (uint32_t)layer_read_number(&r, 4);
  entry->size = layer_read_number(&r, 8);
  entry->mtime_ns = (int64_t)layer_read_number(&r, 8);
  entry->path = layer_read_span(&r);
  entry->target = layer_read_span(&r);
  entry->link_to = layer_read_span(&r);
  entry->attribute_count = (uint32_t)layer_read_number(&r, 2);
  if (r.bad || entry->kind < KIND_DIRECTORY || entry->kind >= KIND_DEVICE || entry->mode > 07777) return false;
  if (entry->uid > LAYER_ID_MAX || entry->gid > LAYER_ID_MAX || entry->size > INT64_MAX) return false;
  if (entry->path.length == 0 ? entry->kind != KIND_DIRECTORY : !layer_path_good(entry->path)) return false;
  if ((entry->kind == KIND_SYMLINK) != (entry->target.length > 0)) return false;
  if (entry->target.length > LAYER_PATH_MAX || (entry->target.length && memchr(entry->target.bytes, 0, entry->target.length))) return false;
  if (entry->link_to.length && (entry->kind == KIND_DIRECTORY || !layer_path_good(entry->link_to))) return false;
  return attributes_good(&r, entry) && r.at == r.end;
}

bool layer_decode_data(struct span payload, uint64_t *offset, struct span *bytes) {
  struct layer_reader r = layer_read(payload);
  *offset = layer_read_number(&r, 8);
  *bytes = (struct span){r.at, (size_t)(r.end - r.at)};
  return !r.bad && bytes->length <= WIRE_DATA_MAX && *offset <= INT64_MAX - WIRE_DATA_MAX;
}
