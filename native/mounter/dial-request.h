// PROTOCOL of `mounter dial`
//
// The daemon starts it as root with a pipe for stdin and a unix stream socket as descriptor 3. It writes requests to stdin and reads answers from the
// socket; many may be under way and answers come in any order. EOF on stdin or on the socket ends the dialer; connections it has handed over live on.
//
// Request:  72 bytes, little endian
//           u32 id        chosen by the daemon, comes back in the answer
//           u32 pid       a process of the sandbox: the connection is made in its network namespace, which must not be the dialer's own
//           u64 start     field 22 of /proc/<pid>/stat: a pid that has been given to somebody else meanwhile is never followed (ESRCH)
//           u32 timeout   milliseconds for everything, at least 1
//           u16 port      at least 1
//           u8  count     addresses to try, 1 to 3
//           u8  0
//           3 × 16 bytes  addresses in the order in which they are tried, IPv4 as ::ffff:a.b.c.d; those behind count are 0
//           The next one is tried when one is refused or cannot be reached; time runs for all of them together. A request that does not fit this ends
//           the dialer: the daemon has lost its place.
// Answer:   one line of JSON, in the form in which Node.js passes descriptors between processes (lib/internal/child_process.js, JSON serialization):
//           {"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"id":7,"errno":0}}   with the connected socket attached to its bytes (SCM_RIGHTS of unix(7))
//           {"id":7,"errno":111}                                                 what the first address answered; ETIMEDOUT out of time, ESRCH no such process
// What the daemon writes to the socket (its acknowledgements of descriptors) is read and dropped.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { DIAL_REQUEST_BYTES = 72, DIAL_ADDRESSES_MAX = 3 };

struct dial_request {
  uint32_t id, pid, timeout_ms;
  uint64_t start;
  uint16_t port;
  uint8_t count;
  uint8_t addresses[DIAL_ADDRESSES_MAX][16];
};

// Reads DIAL_REQUEST_BYTES.
bool dial_request_decode(const uint8_t *bytes, struct dial_request *request);
