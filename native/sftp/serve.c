#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "requests.h"
#include "sftp.h"

enum { IN_BYTES = 2 * (SFTP_LENGTH_BYTES + SFTP_PACKET_MAX) };

// What has come and not been taken up yet.
static struct {
  uint8_t bytes[IN_BYTES];
  size_t start, end;
} input;
static struct sftp_session session;

static int flush(int fd) {
  struct sftp_writer *out = &session.out;
  for (size_t done = 0; done < out->used;) {
    ssize_t wrote = write(fd, out->bytes + done, out->used - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno;
    done += (size_t)wrote;
  }
  out->used = 0;
  return 0;
}

// Everything that is there in full; 0 or an errno.
static int take_packets(int out) {
  for (;;) {
    size_t there = input.end - input.start;
    if (there < SFTP_LENGTH_BYTES) return 0;
    struct sftp_reader r = {input.bytes + input.start, input.bytes + input.end, false};
    uint32_t length = sftp_read_u32(&r);
    if (length == 0 || length > SFTP_PACKET_MAX) return EPROTO;
    if (there - SFTP_LENGTH_BYTES < length) return 0;
    if (!sftp_take(&session, r.at, length)) return EPROTO;
    input.start += SFTP_LENGTH_BYTES + length;
    int error = session.out.used >= SFTP_OUT_WANTED ? flush(out) : 0;
    if (error) return error;
  }
}

// 0, an errno, or -1 at the end.
static int receive(int in) {
  if (input.start == input.end) {
    input.start = input.end = 0;
  } else if (input.start >= IN_BYTES / 2) {
    // Half is enough for any packet, so there is always room behind what is left.
    memmove(input.bytes, input.bytes + input.start, input.end - input.start);
    input.end -= input.start;
    input.start = 0;
  }
  ssize_t got;
  do got = read(in, input.bytes + input.end, IN_BYTES - input.end);
  while (got < 0 && errno == EINTR);
  if (got < 0) return errno;
  input.end += (size_t)got;
  return got == 0 ? -1 : 0;
}

int sftp_serve(int in, int out, const char *home) {
  int error = 0;
  session.home = home;
  session.greeted = false;
  session.out.used = 0;
  input.start = input.end = 0;
  umask(022);
  if (chdir(home) != 0 && chdir("/") != 0) error = errno;
  while (!error) {
    error = take_packets(out);
    // What was asked before a fault is answered.
    int unsent = flush(out);
    if (!error) error = unsent;
    if (!error) error = receive(in);
  }
  sftp_handles_close(&session.handles);
  if (error > 0) return error;
  return input.start == input.end ? 0 : EPROTO;
}
