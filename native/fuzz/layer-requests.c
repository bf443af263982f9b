// The layer worker's request readers. The first byte is the type of the frame; whatever is accepted must keep the promises of layer-request.h.
#include <stdlib.h>
#include <string.h>

#include "../layer/layer-request.h"

static void require(bool condition) {
  if (!condition) abort();
}

static void check_path(struct span path) {
  require(path.length >= 1 && path.length <= LAYER_PATH_MAX && !memchr(path.bytes, 0, path.length));
  size_t start = 0;
  for (size_t at = 0; at <= path.length; at++) {
    if (at < path.length && path.bytes[at] != '/') continue;
    size_t length = at - start;
    require(length >= 1 && length <= LAYER_NAME_MAX);
    require(!(path.bytes[start] == '.' && (length == 1 || (length == 2 && path.bytes[start + 1] == '.'))));
    start = at + 1;
  }
}

static void check_entry(struct span payload) {
  struct new_entry e;
  if (!layer_decode_entry(payload, &e)) return;
  require(e.kind >= KIND_DIRECTORY && e.kind < KIND_DEVICE && e.mode <= 07777 && e.uid <= LAYER_ID_MAX && e.gid <= LAYER_ID_MAX && e.size <= INT64_MAX);
  if (e.path.length) check_path(e.path);
  else require(e.kind == KIND_DIRECTORY);
  require((e.kind == KIND_SYMLINK) == (e.target.length > 0) && e.target.length <= LAYER_PATH_MAX);
  require(e.target.length == 0 || !memchr(e.target.bytes, 0, e.target.length));
  if (e.link_to.length) {
    check_path(e.link_to);
    require(e.kind != KIND_DIRECTORY);
  }
  struct layer_reader r = layer_read(e.attributes);
  uint32_t left = e.attribute_count, seen = 0;
  size_t total = 0;
  for (struct attribute a; layer_next_attribute(&r, &left, &a); seen++) {
    require(a.name.length <= LAYER_NAME_MAX && !memchr(a.name.bytes, 0, a.name.length));
    total += a.name.length + a.value.length;
  }
  require(!r.bad && seen == e.attribute_count && total <= LAYER_ATTRIBUTES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  uint8_t *copy = malloc(size > 1 ? size - 1 : 1);
  if (!copy) return 0;
  memcpy(copy, data + 1, size - 1);
  struct span payload = span_of(copy, size - 1), span, only;
  uint32_t version;
  uint64_t offset;
  if (data[0] == ASK_OPEN && layer_decode_open(payload, &version, &span, &only)) {
    require(span.length <= LAYER_PATH_MAX && (span.length == 0 || (span.bytes[0] == '/' && !memchr(span.bytes, 0, span.length))));
    if (only.length) check_path(only);
    require(!only.length || !memchr(only.bytes, '/', only.length));
  } else if (data[0] == ASK_READ) {
    struct layer_reader r = layer_read(payload);
    while (layer_next_path(&r, &span)) check_path(span);
  } else if (data[0] == ASK_ENTRY) {
    check_entry(payload);
  } else if (data[0] == ASK_DATA && layer_decode_data(payload, &offset, &span)) {
    require(span.length <= WIRE_DATA_MAX && offset + span.length <= INT64_MAX && span.bytes + span.length == copy + size - 1);
  }
  free(copy);
  return 0;
}
