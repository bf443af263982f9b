#include "dial-request.h"

#include <string.h>

enum { ADDRESSES_AT = 24 };

static uint64_t integer(const uint8_t *at, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; i--) value = value << 8 | at[i];
  return value;
}

bool dial_request_decode(const uint8_t *bytes, struct dial_request *request) {
  static const uint8_t none[16];
  request->id = (uint32_t)integer(bytes, 4);
  request->pid = (uint32_t)integer(bytes + 4, 4);
  request->start = integer(bytes + 8, 8);
  request->timeout_ms = (uint32_t)integer(bytes + 16, 4);
  request->port = (uint16_t)integer(bytes + 20, 2);
  request->count = bytes[22];
  if (request->pid < 2 || request->pid > INT32_MAX || request->timeout_ms == 0 || request->port == 0 || bytes[23] != 0) return false;
  if (request->count < 1 || request->count > DIAL_ADDRESSES_MAX) return false;
  memcpy(request->addresses, bytes + ADDRESSES_AT, sizeof request->addresses);
  for (int i = 0; i < DIAL_ADDRESSES_MAX; i++) {
    bool given = memcmp(request->addresses[i], none, sizeof none) != 0;
    if (given != (i < request->count)) return false;
  }
  return true;
}
