// The bytes of SFTP packets: big-endian integers and counted strings, read within bounds and written into one buffer of fixed size.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  // Behind the length; more is refused.
  SFTP_PACKET_MAX = 256 << 10,
  // In one READ or WRITE, as in OpenSSH: what is left goes to the fields around it.
  SFTP_DATA_MAX = SFTP_PACKET_MAX - 1024,
  SFTP_LENGTH_BYTES = 4,
  // Answers are sent at the latest when there are this many.
  SFTP_OUT_WANTED = 64 << 10,
};

// A read past the end sets `bad` and gives zeros; callers check once.
struct sftp_reader {
  const uint8_t *at, *end;
  bool bad;
};

struct sftp_string {
  const uint8_t *bytes;
  uint32_t length;
};

uint8_t sftp_read_u8(struct sftp_reader *r);
uint32_t sftp_read_u32(struct sftp_reader *r);
uint64_t sftp_read_u64(struct sftp_reader *r);
// Points into the packet.
struct sftp_string sftp_read_string(struct sftp_reader *r);
bool sftp_string_is(struct sftp_string string, const char *text);

// Always has room for one more packet of full size when a request is taken up.
struct sftp_writer {
  uint8_t bytes[SFTP_OUT_WANTED + SFTP_LENGTH_BYTES + SFTP_PACKET_MAX];
  size_t used, packet;  // where the packet under way starts
  bool full;            // what is being written does not fit
};

// A packet and its first fields; sftp_end completes it. False: it had not fitted and is gone.
void sftp_begin(struct sftp_writer *w, uint8_t type, uint32_t id);
bool sftp_end(struct sftp_writer *w);
void sftp_put_u8(struct sftp_writer *w, uint8_t value);
void sftp_put_u32(struct sftp_writer *w, uint32_t value);
void sftp_put_u64(struct sftp_writer *w, uint64_t value);
void sftp_put_bytes(struct sftp_writer *w, const void *bytes, size_t length);
void sftp_put_string(struct sftp_writer *w, const char *string);
// Over what was put at `at` before.
void sftp_patch_u32(struct sftp_writer *w, size_t at, uint32_t value);
// Where `length` bytes can be written, or NULL; sftp_filled says how many were.
uint8_t *sftp_reserve(struct sftp_writer *w, size_t length);
void sftp_filled(struct sftp_writer *w, size_t length);
