// The codec against vectors/frames.txt: every host frame is read and its fields compared, every agent frame is written and its bytes compared, and no
// shortened payload is accepted.
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../agent/codec.h"
#include "../agent/frames.h"
#include "check.h"

const char *check_what = "";

struct vector {
  char name[64];
  uint8_t bytes[1024];
  size_t length;
  bool used;
} vectors[80];
static size_t count;

static void load(const char *path) {
  FILE *file = fopen(path, "r");
  char line[4096];
  CHECK(file);
  while (fgets(line, sizeof line, file)) {
    char hex[2049];
    if (*line == '#' || *line == '\n') continue;
    struct vector *v = &vectors[count++];
    CHECK(count < sizeof vectors / sizeof *vectors && sscanf(line, "%63s %2048s", v->name, hex) == 2);
    for (v->length = 0; hex[2 * v->length]; v->length++) {
      unsigned byte;
      CHECK(sscanf(hex + 2 * v->length, "%2x", &byte) == 1);
      v->bytes[v->length] = (uint8_t)byte;
    }
  }
  fclose(file);
  CHECK(count > 40);
}

static struct vector *find(const char *name) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(vectors[i].name, name) != 0) continue;
    vectors[i].used = true;
    return &vectors[i];
  }
  fprintf(stderr, "no vector %s\n", name);
  exit(1);
}

static uint8_t scratch[1024];

// A reader at the payload of a copy, through the frame cutter.
static struct reader open_vector(const char *name, uint8_t type, uint8_t stream, uint32_t channel) {
  static struct frames frames;
  const struct vector *v = find(name);
  struct header header;
  uint8_t *payload;
  frames_reset(&frames);
  bytes_append(&frames.in, "noise\0MAGS", 10);
  bytes_append(&frames.in, MARKER, MARKER_BYTES);
  CHECK(frames_next(&frames, &header, &payload) == FRAMES_MARKER);
  for (size_t i = 0; i < v->length; i++) {
    CHECK(frames_next(&frames, &header, &payload) == FRAMES_NONE);
    bytes_append(&frames.in, v->bytes + i, 1);
  }
  CHECK(frames_next(&frames, &header, &payload) == FRAMES_FRAME);
  CHECK(header.type == type && header.stream == stream && header.channel == channel && header.length == v->length - HEADER_BYTES);
  memcpy(scratch, payload, header.length);
  CHECK(frames_next(&frames, &header, &payload) == FRAMES_NONE);
  frames_reset(&frames);
  return (struct reader){scratch, scratch + header.length, false};
}

static bool same(struct blob blob, const char *bytes, size_t length) { return blob.length == length && memcmp(blob.bytes, bytes, length) == 0; }

static void read_exec_frames(void) {
  struct exec_request e;
  struct reader r = open_vector("host.exec", FRAME_EXEC, 0, 7);
  CHECK(decode_exec(&r, &e) == 0);
  CHECK(e.flags == EXEC_STDIN && e.window == 262144 && e.limit_count == 0 && e.argc == 3 && strcmp(e.cwd, "/root") == 0);
  CHECK(strcmp(e.argv[0], "sh") == 0 && strcmp(e.argv[1], "-c") == 0 && strcmp(e.argv[2], "echo hi") == 0 && !e.argv[3] && !e.argv[4]);
  CHECK(strcmp(e.env[0], "PATH=/usr/bin:/bin") == 0 && strcmp(e.env[1], "HOME=/root") == 0 && !e.env[2]);
  free(e.argv);

  r = open_vector("host.exec-pty-script", FRAME_EXEC, 0, 4294967295);
  CHECK(decode_exec(&r, &e) == 0);
  CHECK(e.flags == (EXEC_PTY | EXEC_SCRIPT) && e.window == 4096 && e.rows == 24 && e.columns == 80 && e.limit_count == 2 && *e.cwd == 0);
  CHECK(e.limits[0].resource == 7 && e.limits[0].soft == 1024 && e.limits[0].hard == 4096);
  CHECK(e.limits[1].resource == 6 && e.limits[1].soft == UINT64_MAX && e.limits[1].hard == UINT64_MAX);
  CHECK(e.argc == 1 && strcmp(e.argv[0], "/bin/bash") == 0 && strcmp(e.env[1], "EMPTY=") == 0 && !e.env[2]);
  CHECK(same(e.script, "#!/bin/sh\necho \0\xff\n", 18));
  free(e.argv);

  r = open_vector("host.exec-init", FRAME_EXEC, 0, 19);
  CHECK(decode_exec(&r, &e) == 0);
  CHECK(e.flags == (EXEC_PTY | EXEC_INIT) && e.rows == 24 && e.columns == 160 && e.argc == 1 && strcmp(e.argv[0], "/sbin/init") == 0 && strcmp(e.env[0], "container=mags") == 0);
  free(e.argv);

  // Cut short anywhere it is refused and nothing leaks.
  for (const char *const *name = (const char *const[]){"host.exec", "host.exec-pty-script", "host.exec-init", NULL}; *name; name++) {
    const struct vector *v = find(*name);
    for (size_t cut = HEADER_BYTES; cut < v->length; cut++) {
      memcpy(scratch, v->bytes + HEADER_BYTES, cut - HEADER_BYTES);
      r = (struct reader){scratch, scratch + cut - HEADER_BYTES, false};
      CHECK(decode_exec(&r, &e) == EPROTO);
    }
  }
}

static void read_identity_frames(void) {
  struct identity i;
  struct reader r = open_vector("host.identity", FRAME_REQUEST, 0, 2);
  CHECK(read_u8(&r) == OP_IDENTITY && decode_identity(&r, &i));
  CHECK(i.time_ns == 1763795000123456789 && same(i.entropy, "\xa0\xa1\xa2\xa3", 4) && strcmp(i.hostname, "box-1") == 0);
  CHECK(same(i.hosts, "127.0.0.1 localhost\n", 20) && same(i.resolv_conf, "nameserver 10.88.0.1\n", 21));
  CHECK(same(i.machine_id, "0123456789abcdef0123456789abcdef\n", 33) && i.has_network && i.network.prefix == 16 && i.network.mtu == 1500);
  CHECK(memcmp(i.network.mac, "\x02\xfc\x0a\x58\x00\x05", 6) == 0 && memcmp(i.network.address, "\x0a\x58\x00\x05", 4) == 0 && memcmp(i.network.gateway, "\x0a\x58\x00\x01", 4) == 0);
  r = open_vector("host.identity-nothing", FRAME_REQUEST, 0, 3);
  CHECK(read_u8(&r) == OP_IDENTITY && decode_identity(&r, &i));
  CHECK(i.time_ns == 0 && i.entropy.length == 0 && *i.hostname == 0 && !i.has_network && !i.has_network6);
  r = open_vector("host.identity-network6", FRAME_REQUEST, 0, 9);
  CHECK(read_u8(&r) == OP_IDENTITY && decode_identity(&r, &i) && !i.has_network && i.has_network6);
  CHECK(memcmp(i.network6.address, "\x20\x01\x0d\xb8\x00\x77\0\0\0\0\0\0\0\0\0\x09", 16) == 0);
  CHECK(memcmp(i.network6.gateway, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16) == 0 && memcmp(i.network6.gateway_mac, "\x02\x4d\x0a\xd5\x00\x01", 6) == 0);
  const struct vector *whole = find("host.identity-network6");
  const size_t plain = find("host.identity-nothing")->length - HEADER_BYTES - 1;
  for (size_t length = plain; length <= whole->length - HEADER_BYTES; length++) {
    // Cut anywhere but where hosts of earlier releases end, or with a byte too many, or with another number.
    memcpy(scratch, whole->bytes + HEADER_BYTES + 1, whole->length - HEADER_BYTES - 1);
    scratch[whole->length - HEADER_BYTES - 1] = 0;
    r = (struct reader){scratch, scratch + length, false};
    CHECK(decode_identity(&r, &i) == (length == plain || length == whole->length - HEADER_BYTES - 1));
  }
  scratch[plain] = 2;
  r = (struct reader){scratch, scratch + whole->length - HEADER_BYTES - 1, false};
  CHECK(!decode_identity(&r, &i));
  const struct vector *v = find("host.identity");
  for (size_t cut = HEADER_BYTES + 1; cut < v->length; cut++) {
    memcpy(scratch, v->bytes + HEADER_BYTES + 1, cut - HEADER_BYTES - 1);
    r = (struct reader){scratch, scratch + cut - HEADER_BYTES - 1, false};
    CHECK(!decode_identity(&r, &i));
  }
}

static void read_channel_frames(void) {
  struct reader r = open_vector("host.hello", FRAME_HELLO, 0, 0);
  CHECK(read_u32(&r) == VERSION && memcmp(read_bytes(&r, NONCE_BYTES), "\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17", NONCE_BYTES) == 0 && reader_done(&r));
  r = open_vector("host.dial", FRAME_DIAL, 0, 9);
  CHECK(read_u16(&r) == 8080 && read_u32(&r) == 65536 && reader_done(&r));
  r = open_vector("host.data", FRAME_DATA, 0, 7);
  CHECK(read_u64(&r) == 4294967296 && memcmp(read_bytes(&r, 8), "hello\n\0\xff", 8) == 0 && reader_done(&r));
  r = open_vector("host.data-empty", FRAME_DATA, 0, 7);
  CHECK(read_u64(&r) == 0 && reader_done(&r));
  r = open_vector("host.eof", FRAME_EOF, 0, 7);
  CHECK(read_u64(&r) == 4294967304 && read_u64(&r) == 0 && reader_done(&r));
  r = open_vector("host.ack-stdout", FRAME_ACK, 1, 7);
  CHECK(read_u64(&r) == 1234567890123 && reader_done(&r));
  r = open_vector("host.ack-stderr", FRAME_ACK, 2, 7);
  CHECK(read_u64(&r) == 3 && reader_done(&r));
  r = open_vector("host.signal", FRAME_SIGNAL, 0, 7);
  CHECK(read_u8(&r) == 15 && read_u8(&r) == 0 && reader_done(&r));
  r = open_vector("host.signal-all", FRAME_SIGNAL, 0, 0);
  CHECK(read_u8(&r) == 9 && read_u8(&r) == 1 && reader_done(&r));
  r = open_vector("host.resize", FRAME_RESIZE, 0, 7);
  CHECK(read_u16(&r) == 50 && read_u16(&r) == 132 && reader_done(&r));
  r = open_vector("host.discard", FRAME_DISCARD, 2, 7);
  CHECK(reader_done(&r));
  r = open_vector("host.close", FRAME_CLOSE, 0, 7);
  CHECK(reader_done(&r));
}

static void read_request_frames(void) {
  struct reader r = open_vector("host.ping", FRAME_REQUEST, 0, 1);
  CHECK(read_u8(&r) == OP_PING && memcmp(read_bytes(&r, 4), "ping", 4) == 0 && reader_done(&r));
  r = open_vector("host.attach", FRAME_REQUEST, 0, 4);
  CHECK(read_u8(&r) == OP_ATTACH && strcmp(read_string(&r), "ws") == 0 && *read_bytes(&r, 16) == 0xf0 && reader_done(&r));
  r = open_vector("host.attach-scope", FRAME_REQUEST, 0, 4);
  CHECK(read_u8(&r) == OP_ATTACH && strcmp(read_string(&r), "ws") == 0 && *read_bytes(&r, 16) == 0xf0 && strcmp(read_string(&r), "workspace") == 0 && reader_done(&r));
  static const struct {
    const char *name;
    uint32_t request;
    uint8_t op;
  } bare[] = {{"host.detach", 5, OP_DETACH}, {"host.freeze", 6, OP_FREEZE}, {"host.thaw", 7, OP_THAW}, {"host.stats", 8, OP_STATS}};
  for (size_t i = 0; i < sizeof bare / sizeof *bare; i++) {
    r = open_vector(bare[i].name, FRAME_REQUEST, 0, bare[i].request);
    CHECK(read_u8(&r) == bare[i].op && reader_done(&r));
  }
}

static void read_file_frames(void) {
  static const struct {
    const char *name;
    uint32_t channel;
    struct file_request file;
  } files[] = {
      {"host.file-stat", 14, {262144, FILE_STAT, 0, 0, "/etc/hosts"}},
      {"host.file-list", 15, {262144, FILE_LIST, 10000, 0, "/etc"}},
      {"host.file", 14, {262144, FILE_READ, 1099511627776, 60000, "/data/\xc3\xa9"}},
      {"host.file-write", 16, {4096, FILE_WRITE, 0640, 0, "/a/b"}},
      {"host.file-write-keep", 17, {262144, FILE_WRITE, 0xffffffff, 0, "/a/b"}},
      {"host.file-sftp", 18, {262144, FILE_SFTP, 0, 0, "/root"}},
      {"host.file-remove", 4000000000, {262144, FILE_REMOVE, 1, 0, "/a"}},
  };
  struct file_request file;
  struct reader r;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    const struct file_request *wanted = &files[i].file;
    r = open_vector(files[i].name, FRAME_FILE, 0, files[i].channel);
    CHECK(decode_file(&r, &file) && file.window == wanted->window && file.op == wanted->op && strcmp(file.path, wanted->path) == 0);
    CHECK(file.first == wanted->first && file.second == wanted->second);
  }
  uint8_t unknown[25] = {[4] = FILE_SFTP + 1};
  r = (struct reader){unknown, unknown + sizeof unknown, false};
  CHECK(!decode_file(&r, &file));
}

static struct bytes out;

// What was written since the last call is the vector.
static void expect(const char *name) {
  const struct vector *v = find(name);
  if (bytes_count(&out) != v->length || memcmp(bytes_front(&out), v->bytes, v->length) != 0) {
    fprintf(stderr, "%s is written as ", name);
    for (size_t i = 0; i < bytes_count(&out); i++) fprintf(stderr, "%02x", bytes_front(&out)[i]);
    fprintf(stderr, "\n");
    exit(1);
  }
  bytes_reset(&out);
}

static void write_frames(void) {
  static const uint8_t nonce[NONCE_BYTES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  put_hello(&out, nonce, 0, 0);
  put_features(&out, 0);
  expect("agent.hello-empty");
  put_hello(&out, nonce, 1, 2);
  put_live_channel(&out, &(struct live_channel){.channel = 7, .exited = true, .exit_kind = 1, .exit_code = 9, .pid = 42, .received = 5, .out = {{100, 90, true}, {4294967297, 4294967296, false}}});
  put_live_channel(&out, &(struct live_channel){.channel = 9, .kind = KIND_DIAL, .out = {{1, 0, false}, {0, 0, true}}});
  put_features(&out, FEATURE_INIT | FEATURE_IPV6);
  expect("agent.hello");
  put_hello(&out, nonce, 0, 1);
  put_live_channel(&out, &(struct live_channel){.channel = 3, .kind = KIND_FILE, .pid = 77, .received = 5, .out = {{0, 0, false}, {0, 0, true}}});
  put_features(&out, 0);
  expect("agent.hello-files");
  put_opened(&out, 7, 42);
  expect("agent.opened");
  put_opened(&out, 9, 0);
  expect("agent.opened-dial");
  put_data_head(&out, 7, 1, 0, 3);
  bytes_append(&out, "hi\n", 3);
  expect("agent.data-stdout");
  put_data_head(&out, 7, 2, 4294967296, 1);
  bytes_append(&out, "\xff", 1);
  expect("agent.data-stderr");
  put_eof(&out, 7, 1, 3, 1000000);
  expect("agent.eof");
  put_ack(&out, 7, 4294967304);
  expect("agent.ack");
  put_exit(&out, 7, &(struct exit_record){.code = 3, .user_us = 1500, .system_us = 2500, .max_rss_kib = 1824}, "");
  expect("agent.exit");
  put_exit(&out, 7, &(struct exit_record){.kind = SIGNALLED, .code = 9, .system_us = 1, .max_rss_kib = 4294967296}, "");
  expect("agent.exit-signalled");
  put_exit(&out, 8, &(struct exit_record){.kind = NOT_STARTED, .code = 2}, "nosuch: No such file or directory");
  expect("agent.exit-not-started");
  put_exit(&out, 19, &(struct exit_record){.kind = REBOOTED, .code = 1, .user_us = 1500000, .system_us = 2500000, .max_rss_kib = 12288}, "");
  expect("agent.exit-rebooted");
  put_exit(&out, 19, &(struct exit_record){.kind = POWERED_OFF, .code = 2, .user_us = 1500000, .system_us = 2500000, .max_rss_kib = 12288}, "");
  expect("agent.exit-powered-off");
  put_reply_head(&out, 1, 0, 4);
  bytes_append(&out, "ping", 4);
  expect("agent.reply-ping");
  put_reply_head(&out, 9, 2, 0);
  expect("agent.reply-error");
  put_reply_stats(&out, 8, &(struct stats){1073741824, 536870912, 10737418240, 9663676416, 12});
  expect("agent.reply-stats");
  put_data_head(&out, 14, 1, 0, 30);
  put_entry(&out, "hosts", &(struct entry){'f', 0644, 221, 1763795000123456789});
  expect("agent.data-file-stat");
  put_data_head(&out, 15, 1, 0, 1 + 29 + 28);
  put_u8(&out, 1);
  put_entry(&out, "mtab", &(struct entry){'l', 0777, 19, 0});
  put_entry(&out, "ssl", &(struct entry){'d', 0755, 4096, -1});
  expect("agent.data-file-list");
}

static enum frames_event first_event(const char *bytes, size_t length) {
  struct frames frames = {0};
  struct header header;
  uint8_t *payload;
  bytes_append(&frames.in, MARKER, MARKER_BYTES);
  bytes_append(&frames.in, bytes, length);
  CHECK(frames_next(&frames, &header, &payload) == FRAMES_MARKER);
  enum frames_event event = frames_next(&frames, &header, &payload);
  frames_reset(&frames);
  return event;
}

static void refuse_headers(void) {
  CHECK(first_event("\0\0\0\0\1\0\0\0\0\0\0\0", 12) == FRAMES_FRAME);
  CHECK(first_event("\1\0\40\0\1\0\0\0\0\0\0\0", 12) == FRAMES_BROKEN);  // 2 MiB and one byte
  CHECK(first_event("\0\0\40\0\1\0\0\0\0\0\0\0", 12) == FRAMES_NONE);    // 2 MiB, to come
  CHECK(first_event("\0\0\0\0\1\0\1\0\0\0\0\0", 12) == FRAMES_BROKEN);   // reserved
  CHECK(first_event("\0\0\0\0\1\3\0\0\0\0\0\0", 12) == FRAMES_BROKEN);   // stream 3
  CHECK(first_event("\0MAGS-AGENT-01\r\n", 16) == FRAMES_MARKER);
  CHECK(first_event("\0MAGS-AGENT-02", 14) == FRAMES_BROKEN);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  load(argv[1]);
  CHECK(find("host.marker")->length == MARKER_BYTES && memcmp(find("host.marker")->bytes, MARKER, MARKER_BYTES) == 0);
  CHECK(memcmp(find("agent.marker")->bytes, MARKER, MARKER_BYTES) == 0);
  read_exec_frames();
  read_identity_frames();
  read_channel_frames();
  read_request_frames();
  read_file_frames();
  write_frames();
  refuse_headers();
  for (size_t i = 0; i < count; i++) {
    if (!vectors[i].used) fprintf(stderr, "%s is not tested\n", vectors[i].name);
    CHECK(vectors[i].used);
  }
  printf("%zu vectors hold\n", count);
}
