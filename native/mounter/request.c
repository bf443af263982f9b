#include "request.h"

#include <string.h>

#include "../tree/narrow-upper.h"

struct fields {
  uint8_t *at, *end;
  bool bad;
};

static uint64_t take_integer(struct fields *f, int count) {
  if (f->bad || f->end - f->at < count) {
    f->bad = true;
    return 0;
  }
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; i--) value = value << 8 | f->at[i];
  f->at += count;
  return value;
}

// The string moves over its own length field, which makes room for the NUL.
static char *take_string(struct fields *f) {
  uint64_t length = take_integer(f, 2);
  if (f->bad || length > PATH_BYTES_MAX || (size_t)(f->end - f->at) < length || memchr(f->at, 0, length)) {
    f->bad = true;
    return NULL;
  }
  char *string = (char *)f->at - 2;
  memmove(string, f->at, length);
  string[length] = 0;
  f->at += length;
  return string;
}

static const char *take_path(struct fields *f) {
  const char *path = take_string(f);
  if (!f->bad && *path != '/') f->bad = true;
  return path;
}

static uint32_t take_uid_base(struct fields *f) {
  uint64_t base = take_integer(f, 4);
  // Room for the range below the last id, which means "none".
  if (base < UID_COUNT || base % UID_COUNT || base + UID_COUNT > UINT32_MAX) f->bad = true;
  return (uint32_t)base;
}

static void take_process(struct fields *f, struct request *request) {
  request->pid = (uint32_t)take_integer(f, 4);
  request->start = take_integer(f, 8);
  if (request->pid < 2 || request->pid > INT32_MAX) f->bad = true;
}

static uint32_t take_flags(struct fields *f, uint32_t known) {
  uint64_t flags = take_integer(f, 4);
  if (flags & ~(uint64_t)known) f->bad = true;
  return (uint32_t)flags;
}

static void take_layers(struct fields *f, uint16_t least, struct request *request) {
  request->lower_count = (uint16_t)take_integer(f, 2);
  if (request->lower_count < least || request->lower_count > LOWERS_MAX) f->bad = true;
  for (int i = 0; i < request->lower_count && !f->bad; i++) request->lowers[i] = take_path(f);
  request->path = take_path(f);
}

bool request_decode(uint8_t *bytes, size_t length, struct request *request) {
  struct fields f = {bytes, bytes + length, false};
  // Not the list of layers: it is long, and only the counted part of it is looked at.
  request->id = (uint32_t)take_integer(&f, 4);
  request->op = (uint8_t)take_integer(&f, 1);
  request->pid = request->uid_base = request->flags = request->number = 0;
  request->start = 0;
  request->lower_count = 0;
  request->path = request->second = NULL;
  switch (request->op) {
    case OP_PREPARE:
      request->uid_base = take_uid_base(&f);
      break;
    case OP_ATTACH:
      take_process(&f, request);
      request->uid_base = take_uid_base(&f);
      request->flags = take_flags(&f, ROOT_VOLATILE);
      take_layers(&f, 1, request);
      break;
    case OP_MOUNT_ROOT:
      request->second = take_path(&f);
      request->uid_base = take_uid_base(&f);
      request->flags = take_flags(&f, ROOT_VOLATILE | ROOT_SHIFTED);
      take_layers(&f, 1, request);
      break;
    case OP_SHIFT:
      request->uid_base = take_uid_base(&f);
      request->path = take_path(&f);
      request->second = take_path(&f);
      break;
    case OP_RESET_UPPER:
      request->path = take_path(&f);
      request->flags = take_flags(&f, UPPER_KEEP);
      break;
    case OP_NARROW_UPPER:
      request->second = take_string(&f);
      if (!f.bad && !narrow_name_good(request->second)) f.bad = true;
      take_layers(&f, 0, request);
      break;
    case OP_SWEEP_UPPER:
      request->path = take_path(&f);
      request->number = (uint32_t)take_integer(&f, 4);
      break;
    case OP_MOUNT_IMAGE:
      request->path = take_path(&f);
      request->second = take_path(&f);
      request->flags = take_flags(&f, IMAGE_DISCARD | IMAGE_NOATIME | IMAGE_READ_ONLY);
      break;
    case OP_PROBE:
    case OP_UNMOUNT:
    case OP_UNMOUNT_ROOT:
    case OP_SEAL:
      request->path = take_path(&f);
      break;
    case OP_UNSEAL:
      request->number = (uint32_t)take_integer(&f, 4);
      break;
    case OP_KILL:
      take_process(&f, request);
      request->number = (uint32_t)take_integer(&f, 4);
      break;
    case OP_RUN: {
      request->number = (uint32_t)take_integer(&f, 4);
      request->path = take_path(&f);
      uint64_t count = take_integer(&f, 2);
      if (count < 1 || count > ARGUMENTS_MAX) return false;
      for (uint64_t i = 0; i < count; i++) request->arguments[i] = take_string(&f);
      request->arguments[count] = NULL;
      break;
    }
    default:
      return false;
  }
  return !f.bad && f.at == f.end;
}
