#include "packet.h"

#include <string.h>

static uint64_t read_integer(struct sftp_reader *r, size_t count) {
  if (r->bad || count > (size_t)(r->end - r->at)) {
    r->bad = true;
    return 0;
  }
  uint64_t value = 0;
  while (count--) value = value << 8 | *r->at++;
  return value;
}

uint8_t sftp_read_u8(struct sftp_reader *r) { return (uint8_t)read_integer(r, 1); }
uint32_t sftp_read_u32(struct sftp_reader *r) { return (uint32_t)read_integer(r, 4); }
uint64_t sftp_read_u64(struct sftp_reader *r) { return read_integer(r, 8); }

struct sftp_string sftp_read_string(struct sftp_reader *r) {
  uint32_t length = sftp_read_u32(r);
  if (r->bad || length > (size_t)(r->end - r->at)) {
    r->bad = true;
    return (struct sftp_string){r->end, 0};
  }
  struct sftp_string string = {r->at, length};
  r->at += length;
  return string;
}

bool sftp_string_is(struct sftp_string string, const char *text) { return string.length == strlen(text) && memcmp(string.bytes, text, string.length) == 0; }

uint8_t *sftp_reserve(struct sftp_writer *w, size_t length) {
  size_t most = w->packet + SFTP_LENGTH_BYTES + SFTP_PACKET_MAX;
  if (most > sizeof w->bytes) most = sizeof w->bytes;
  if (w->full || length > most - w->used) {
    w->full = true;
    return NULL;
  }
  return w->bytes + w->used;
}

void sftp_filled(struct sftp_writer *w, size_t length) { w->used += length; }

static void put_integer(struct sftp_writer *w, uint64_t value, size_t count) {
  uint8_t *into = sftp_reserve(w, count);
  if (!into) return;
  for (size_t i = count; i-- > 0; value >>= 8) into[i] = (uint8_t)value;
  sftp_filled(w, count);
}

void sftp_put_u8(struct sftp_writer *w, uint8_t value) { put_integer(w, value, 1); }
void sftp_put_u32(struct sftp_writer *w, uint32_t value) { put_integer(w, value, 4); }
void sftp_put_u64(struct sftp_writer *w, uint64_t value) { put_integer(w, value, 8); }

void sftp_put_bytes(struct sftp_writer *w, const void *bytes, size_t length) {
  sftp_put_u32(w, (uint32_t)length);
  uint8_t *into = sftp_reserve(w, length);
  if (!into) return;
  memcpy(into, bytes, length);
  sftp_filled(w, length);
}

void sftp_put_string(struct sftp_writer *w, const char *string) { sftp_put_bytes(w, string, strlen(string)); }

void sftp_patch_u32(struct sftp_writer *w, size_t at, uint32_t value) {
  for (size_t i = 4; i-- > 0; value >>= 8) w->bytes[at + i] = (uint8_t)value;
}

void sftp_begin(struct sftp_writer *w, uint8_t type, uint32_t id) {
  w->packet = w->used;
  w->full = false;
  sftp_put_u32(w, 0);
  sftp_put_u8(w, type);
  sftp_put_u32(w, id);
}

bool sftp_end(struct sftp_writer *w) {
  if (w->full) {
    w->used = w->packet;
    return false;
  }
  sftp_patch_u32(w, w->packet, (uint32_t)(w->used - w->packet - SFTP_LENGTH_BYTES));
  return true;
}
