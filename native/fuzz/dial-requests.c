// The dialer's request reader. Whatever it accepts must keep the promises of dial-request.h.
#include <stdlib.h>
#include <string.h>

#include "../mounter/dial-request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct dial_request request;
  if (size < DIAL_REQUEST_BYTES) return 0;
  uint8_t *copy = malloc(DIAL_REQUEST_BYTES);
  if (!copy) return 0;
  memcpy(copy, data, DIAL_REQUEST_BYTES);
  if (dial_request_decode(copy, &request)) {
    static const uint8_t none[16];
    if (request.pid < 2 || request.port == 0 || request.timeout_ms == 0 || request.count < 1 || request.count > DIAL_ADDRESSES_MAX) abort();
    for (int i = 0; i < request.count; i++) {
      if (memcmp(request.addresses[i], none, sizeof none) == 0) abort();
    }
  }
  free(copy);
  return 0;
}
