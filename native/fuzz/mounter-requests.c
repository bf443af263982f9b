// The mounter's request reader. Whatever it accepts must keep the promises of request.h.
#include <stdlib.h>
#include <string.h>

#include "../mounter/request.h"

static void check_path(const char *path) {
  if (!path || path[0] != '/' || strlen(path) > PATH_BYTES_MAX) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct request request;
  uint8_t *copy = malloc(size ? size : 1);
  if (!copy) return 0;
  memcpy(copy, data, size);
  if (request_decode(copy, size, &request)) {
    if (request.op < OP_PROBE || request.op > OP_SWEEP_UPPER) abort();
    bool has_path = request.op != OP_PREPARE && request.op != OP_UNSEAL && request.op != OP_KILL;
    if (has_path) check_path(request.path);
    if (request.op == OP_MOUNT_IMAGE || request.op == OP_MOUNT_ROOT || request.op == OP_SHIFT) check_path(request.second);
    if (request.op == OP_ATTACH || request.op == OP_MOUNT_ROOT) {
      if (request.lower_count < 1 || request.lower_count > LOWERS_MAX || request.uid_base < UID_COUNT) abort();
      for (int i = 0; i < request.lower_count; i++) check_path(request.lowers[i]);
    }
    if (request.op == OP_NARROW_UPPER && (!*request.second || strchr(request.second, '/') || strlen(request.second) > 255)) abort();
    if (request.op == OP_RUN) {
      int count = 0;
      while (request.arguments[count]) {
        if (strlen(request.arguments[count++]) > PATH_BYTES_MAX || count > ARGUMENTS_MAX) abort();
      }
      if (count < 1) abort();
    }
  }
  free(copy);
  return 0;
}
