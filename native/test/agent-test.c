// The real agent as an ordinary process, driven over its socket. Each test ends with no channel left; at the end no descriptor and no process may be left.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "host.h"

static uint32_t next_channel = 1;

static struct bytes request;

static void begin_request(uint8_t op) {
  put_header(&request, 0, FRAME_REQUEST, 0, 4000);
  put_u8(&request, op);
}

static void put_text(const char *text) {
  put_u32(&request, (uint32_t)strlen(text));
  bytes_append(&request, text, strlen(text));
}

// The errno; the result is in *reply.
static int ask(struct frame *reply) {
  host_end_frame(&request);
  host_send(&request);
  bytes_reset(&request);
  *reply = host_expect(FRAME_REPLY, 0, 4000);
  return (int)get(reply->payload, 4);
}

// Everything sent before has been carried out when this returns.
static void settle(void) {
  struct frame reply;
  begin_request(OP_PING);
  CHECK(ask(&reply) == 0);
}

static struct ending run(struct program program) {
  host_exec(next_channel, program);
  return host_run_to_end(next_channel++);
}

static void expect_run(struct program program, uint8_t kind, int32_t code, const char *out, const char *err) {
  struct ending ending = run(program);
  bool right = ending.kind == kind && ending.code == code && ending_wrote(&ending, 1, out) && ending_wrote(&ending, 2, err);
  if (!right) {
    fprintf(stderr, "kind %u code %d words %s out %.*s err %.*s\n", ending.kind, ending.code, ending.words, (int)bytes_count(&ending.out[0]), bytes_front(&ending.out[0]),
            (int)bytes_count(&ending.out[1]), bytes_front(&ending.out[1]));
  }
  CHECK(right);
  ending_free(&ending);
}

static void runs_programs(void) {
  expect_run((struct program){.argv = {"echo", "hi"}}, EXITED, 0, "hi\n", "");
  expect_run((struct program){.argv = {"sh", "-c", "echo out; echo err >&2; exit 7"}}, EXITED, 7, "out\n", "err\n");
  expect_run((struct program){.argv = {"sh", "-c", "kill -9 $$"}}, SIGNALLED, SIGKILL, "", "");
  expect_run((struct program){.argv = {"sh", "-c", "echo $MARK; pwd; umask; cat"}, .cwd = "/usr"}, EXITED, 0, "set\n/usr\n0022\n", "");
  expect_run((struct program){.argv = {"sh", "-c", "ulimit -n"}, .resource = RLIMIT_NOFILE, .limit = 77}, EXITED, 0, "77\n", "");
  expect_run((struct program){.argv = {"sh", "-c", "exec ls /proc/self/fd"}}, EXITED, 0, "0\n1\n2\n3\n", "");
  expect_run((struct program){.argv = {"sh", "-c", "exec grep -E '^Sig(Blk|Ign)' /proc/self/status"}}, EXITED, 0,
             "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "");
  expect_run((struct program){.argv = {"sh", "-c", "test $(cut -d' ' -f6 /proc/self/stat) = $$ && echo own session"}}, EXITED, 0, "own session\n", "");
}

static void tells_why_it_did_not_start(void) {
  struct ending ending = run((struct program){.argv = {"no-such-program"}});
  CHECK(ending.kind == NOT_STARTED && ending.code == ENOENT && strstr(ending.words, "no-such-program: No such file"));
  ending_free(&ending);
  ending = run((struct program){.argv = {"/etc/passwd"}});
  CHECK(ending.kind == NOT_STARTED && ending.code == EACCES);
  ending_free(&ending);
  ending = run((struct program){.argv = {"true"}, .cwd = "/nowhere"});
  CHECK(ending.kind == NOT_STARTED && ending.code == ENOENT && strstr(ending.words, "/nowhere"));
  ending_free(&ending);
  // Only the guest of a virtual machine has an init to start; here it would be the host's.
  ending = run((struct program){.argv = {"true"}, .flags = EXEC_INIT | EXEC_PTY});
  CHECK(ending.kind == NOT_STARTED && ending.code == EOPNOTSUPP && strstr(ending.words, "init: "));
  ending_free(&ending);
  char *big = malloc(600 << 10);
  memset(big, 'x', 600 << 10);
  big[(600 << 10) - 1] = 0;
  ending = run((struct program){.argv = {"true", big}});
  CHECK(ending.kind == NOT_STARTED && ending.code == E2BIG);
  ending_free(&ending);
  free(big);
}

static void runs_scripts(void) {
  char expected[64], path[48];
  snprintf(path, sizeof path, "/run/mags/script-%u", next_channel);
  snprintf(expected, sizeof expected, "from %s\n700\n", path);
  expect_run((struct program){.argv = {"sh"}, .script = "echo from $0\nstat -c %a $0\n"}, EXITED, 0, expected, "");
  CHECK(access(path, F_OK) != 0);
}

// The numbers from 1 on, one a line, as seq writes them.
static void check_sequence(const struct bytes *out, int last) {
  const char *at = (const char *)bytes_front(out), *end = at + bytes_count(out);
  for (int i = 1; i <= last; i++) {
    char line[16];
    size_t length = (size_t)sprintf(line, "%d\n", i);
    CHECK((size_t)(end - at) >= length && memcmp(at, line, length) == 0);
    at += length;
  }
  CHECK(at == end);
}

static void keeps_to_the_window(void) {
  enum { WINDOW = 8192 };
  uint32_t channel = next_channel++;
  struct bytes all = {0};
  host_exec(channel, (struct program){.argv = {"seq", "60000"}, .window = WINDOW});
  host_expect(FRAME_OPENED, 0, channel);
  uint64_t acked = 0;
  for (bool ended = false; !ended;) {
    struct frame frame = host_receive();
    if (frame.header.type == FRAME_DATA) {
      CHECK(get(frame.payload, 8) == bytes_count(&all));
      bytes_append(&all, frame.payload + 8, frame.header.length - 8);
      CHECK(bytes_count(&all) - acked <= WINDOW);
      // Only when the window is used up, and then not all of it.
      if (bytes_count(&all) - acked == WINDOW) host_ack(channel, 1, acked += WINDOW - 1000);
    } else if (frame.header.type == FRAME_EOF && frame.header.stream == 1) {
      ended = true;
    } else {
      CHECK(frame.header.type == FRAME_EOF || frame.header.type == FRAME_EXIT);
    }
    if (bytes_count(&all) > 300000 && acked < bytes_count(&all)) host_ack(channel, 1, acked = bytes_count(&all));
  }
  check_sequence(&all, 60000);
  bytes_reset(&all);
  host_bare(FRAME_CLOSE, 0, channel);
}

static void goes_on_after_a_reconnect(void) {
  enum { WINDOW = 32768 };
  uint32_t channel = next_channel++;
  struct bytes all = {0};
  host_exec(channel, (struct program){.argv = {"sh", "-c", "seq 50000; echo end >&2; exit 5"}, .window = WINDOW});
  uint64_t acked = 0;
  uint32_t pid = (uint32_t)get(host_expect(FRAME_OPENED, 0, channel).payload, 4);
  bool exited = false;
  for (int connection = 0; !exited; connection++) {
    // Each connection takes a little more before it is cut off, at times in the middle of a frame.
    for (int i = 0; i < 3 + connection && !exited; i++) {
      struct frame frame = host_receive();
      if (frame.header.type == FRAME_DATA && frame.header.stream == 1) {
        uint64_t offset = get(frame.payload, 8);
        CHECK(offset <= bytes_count(&all));
        size_t known = (size_t)(bytes_count(&all) - offset), length = frame.header.length - 8;
        if (known < length) bytes_append(&all, frame.payload + 8 + known, length - known);
        if (i % 2 || bytes_count(&all) - acked == WINDOW) host_ack(channel, 1, acked = bytes_count(&all));
      } else if (frame.header.type == FRAME_EXIT) {
        CHECK(frame.payload[0] == EXITED && get(frame.payload + 1, 4) == 5);
        exited = true;
      }
    }
    if (exited) break;
    struct frame hello = host_greet();
    const uint8_t *live = hello.payload + 25;
    CHECK(get(hello.payload + 21, 4) == 1 && get(live, 4) == channel && live[4] == KIND_EXEC && get(live + 11, 4) == pid);
    CHECK(get(live + 23, 8) >= get(live + 31, 8) && get(live + 31, 8) <= bytes_count(&all));
    // Acknowledgements may have been lost with the connection.
    acked = get(live + 31, 8);
  }
  check_sequence(&all, 50000);
  bytes_reset(&all);
  // After the exit a new connection hears the whole of what is not acknowledged again.
  struct frame hello = host_greet();
  CHECK(get(hello.payload + 21, 4) == 1 && hello.payload[25 + 5] == 1);
  for (bool again = false; !again;) again = host_receive().header.type == FRAME_EXIT;
  host_bare(FRAME_CLOSE, 0, channel);
  settle();
  hello = host_greet();
  CHECK(get(hello.payload + 21, 4) == 0);
}

static void takes_input(void) {
  enum { TOTAL = 3 << 20, PIECE = 48 << 10 };
  uint32_t channel = next_channel++;
  uint8_t *sent = malloc(TOTAL);
  for (int i = 0; i < TOTAL; i++) sent[i] = (uint8_t)(i * 7 + i / 251);
  host_exec(channel, (struct program){.argv = {"cat"}, .flags = EXEC_STDIN});
  struct bytes back = {0};
  size_t offset = 0, taken = 0;
  bool exited = false, closed = false;
  while (!exited || bytes_count(&back) < TOTAL) {
    while (offset < TOTAL && offset + PIECE - taken <= STDIN_WINDOW && !host_pending()) {
      size_t length = TOTAL - offset < PIECE ? TOTAL - offset : PIECE;
      host_data(channel, offset, sent + offset, length);
      offset += length;
    }
    if (offset == TOTAL && !closed) {
      host_eof(channel, TOTAL);
      closed = true;
    }
    struct frame frame = host_receive();
    if (frame.header.type == FRAME_ACK) {
      CHECK(get(frame.payload, 8) > taken && get(frame.payload, 8) <= offset);
      taken = (size_t)get(frame.payload, 8);
    } else if (frame.header.type == FRAME_DATA) {
      bytes_append(&back, frame.payload + 8, frame.header.length - 8);
      host_ack(channel, 1, bytes_count(&back));
    } else if (frame.header.type == FRAME_EXIT) {
      exited = true;
    }
  }
  CHECK(taken == TOTAL && bytes_count(&back) == TOTAL && memcmp(bytes_front(&back), sent, TOTAL) == 0);
  bytes_reset(&back);
  free(sent);
  host_bare(FRAME_CLOSE, 0, channel);
}

static void takes_input_nobody_reads(void) {
  uint32_t channel = next_channel++;
  static uint8_t bytes[100000];
  host_exec(channel, (struct program){.argv = {"sh", "-c", "exec <&-; sleep 0.2"}, .flags = EXEC_STDIN});
  host_data(channel, 0, bytes, sizeof bytes);
  host_data(channel, sizeof bytes, bytes, sizeof bytes);
  uint64_t taken = 0;
  for (bool exited = false; !exited || taken < 2 * sizeof bytes;) {
    struct frame frame = host_receive();
    if (frame.header.type == FRAME_ACK) taken = get(frame.payload, 8);
    exited |= frame.header.type == FRAME_EXIT;
  }
  host_bare(FRAME_CLOSE, 0, channel);
}

// What the terminal has shown until it contains `text`.
static void wait_for_text(uint32_t channel, struct bytes *shown, const char *text) {
  while (!memmem(bytes_front(shown), bytes_count(shown), text, strlen(text))) {
    struct frame frame = host_receive();
    if (frame.header.type == FRAME_ACK || frame.header.type == FRAME_OPENED || frame.header.type == FRAME_EOF) continue;
    CHECK(frame.header.type == FRAME_DATA && frame.header.stream == 1 && frame.header.channel == channel);
    bytes_append(shown, frame.payload + 8, frame.header.length - 8);
  }
}

static void gives_terminals(void) {
  uint32_t channel = next_channel++;
  struct bytes shown = {0}, resize = {0};
  host_exec(channel, (struct program){.argv = {"sh", "-c", "stty size; test -t 2 && echo is tty; read line; stty size; echo got $line; cat; exit 3"}, .flags = EXEC_PTY | EXEC_STDIN});
  bytes_append(&shown, "", 1);
  wait_for_text(channel, &shown, "is tty\r\n");
  CHECK(memmem(bytes_front(&shown), bytes_count(&shown), "24 80\r\n", 7));
  put_header(&resize, 4, FRAME_RESIZE, 0, channel);
  put_u16(&resize, 50);
  put_u16(&resize, 132);
  host_send(&resize);
  bytes_reset(&resize);
  host_data(channel, 0, "word\n", 5);
  wait_for_text(channel, &shown, "got word\r\n");
  CHECK(memmem(bytes_front(&shown), bytes_count(&shown), "50 132\r\n", 8));
  host_eof(channel, 5);
  for (;;) {
    struct frame frame = host_receive();
    if (frame.header.type != FRAME_EXIT) continue;
    CHECK(frame.payload[0] == EXITED && get(frame.payload + 1, 4) == 3);
    break;
  }
  bytes_reset(&shown);
  host_bare(FRAME_CLOSE, 0, channel);
}

static void sends_signals(void) {
  uint32_t channel = next_channel;
  host_exec(channel, (struct program){.argv = {"sleep", "1000"}});
  host_signal(channel, SIGTERM, 0);
  struct ending ending = host_run_to_end(next_channel++);
  CHECK(ending.kind == SIGNALLED && ending.code == SIGTERM);
  ending_free(&ending);
  // The whole group.
  channel = next_channel++;
  host_exec(channel, (struct program){.argv = {"sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"}});
  struct bytes shown = {0};
  bytes_append(&shown, "", 1);
  wait_for_text(channel, &shown, "ready");
  bytes_reset(&shown);
  host_ack(channel, 1, 6);
  host_signal(channel, SIGKILL, 0);
  for (int ends = 0; ends < 3;) {
    struct frame frame = host_receive();
    ends += frame.header.type == FRAME_EOF || frame.header.type == FRAME_EXIT;
  }
  host_bare(FRAME_CLOSE, 0, channel);
  // To everybody is for a first process of a namespace only: here it would hit this machine.
  host_signal(0, SIGKILL, 1);
}

static void exits_before_what_it_left_behind(void) {
  uint32_t channel = next_channel++;
  host_exec(channel, (struct program){.argv = {"sh", "-c", "exec 3<&0; (read line <&3; echo late) & echo early"}, .flags = EXEC_STDIN});
  bool early = false;
  for (bool exited = false; !exited;) {
    struct frame frame = host_receive();
    early |= frame.header.type == FRAME_DATA && memcmp(frame.payload + 8, "early\n", 6) == 0;
    CHECK(frame.header.type != FRAME_EOF || frame.header.stream != 1);
    exited = frame.header.type == FRAME_EXIT;
  }
  CHECK(early);
  host_bare(FRAME_CLOSE, 0, channel);
}

static void discards(void) {
  uint32_t channel = next_channel;
  host_exec(channel, (struct program){.argv = {"head", "-c", "20000000", "/dev/zero"}, .window = 4096});
  host_expect(FRAME_OPENED, 0, channel);
  struct frame frame = host_expect(FRAME_DATA, 1, channel);
  uint64_t came = frame.header.length - 8;
  host_bare(FRAME_DISCARD, 1, channel);
  bool exited = false;
  for (uint64_t dropped = 0; !exited || !dropped;) {
    frame = host_receive();
    if (frame.header.type == FRAME_DATA) came += frame.header.length - 8;
    if (frame.header.type == FRAME_EOF && frame.header.stream == 1) {
      dropped = get(frame.payload + 8, 8);
      CHECK(get(frame.payload, 8) == came && came + dropped == 20000000);
    }
    exited |= frame.header.type == FRAME_EXIT;
  }
  host_bare(FRAME_CLOSE, 0, next_channel++);
}

static void dial(uint32_t channel, uint16_t port) {
  struct bytes out = {0};
  put_header(&out, 6, FRAME_DIAL, 0, channel);
  put_u16(&out, port);
  put_u32(&out, 65536);
  host_send(&out);
  bytes_reset(&out);
}

static void dials(void) {
  uint32_t channel = next_channel++;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
  uint16_t port = ntohs(address.sin_port);
  dial(channel, port);
  CHECK(get(host_expect(FRAME_OPENED, 0, channel).payload, 4) == 0);
  int peer = accept(listener, NULL, NULL);
  char text[16];
  host_data(channel, 0, "ping", 4);
  host_eof(channel, 4);
  CHECK(recv(peer, text, 4, MSG_WAITALL) == 4 && memcmp(text, "ping", 4) == 0 && recv(peer, text, 1, 0) == 0);
  CHECK(get(host_expect(FRAME_ACK, 0, channel).payload, 8) == 4);
  // Our half is closed, theirs goes on.
  CHECK(send(peer, "pong", 4, 0) == 4);
  CHECK(memcmp(host_expect(FRAME_DATA, 1, channel).payload + 8, "pong", 4) == 0);
  close(peer);
  CHECK(get(host_expect(FRAME_EOF, 1, channel).payload, 8) == 4);
  host_bare(FRAME_CLOSE, 0, channel);
  close(listener);
  channel = next_channel++;
  dial(channel, port);
  struct frame refused = host_expect(FRAME_EXIT, 0, channel);
  CHECK(refused.payload[0] == NOT_STARTED && get(refused.payload + 1, 4) == ECONNREFUSED);
  host_bare(FRAME_CLOSE, 0, channel);
}

static void answers_requests(void) {
  struct frame reply;
  begin_request(OP_PING);
  put_text("echo");
  CHECK(ask(&reply) == 0 && reply.header.length == 12 && memcmp(reply.payload + 8, "echo", 4) == 0);
  begin_request(OP_STATS);
  CHECK(ask(&reply) == 0 && reply.header.length == 40 && get(reply.payload + 4, 8) >= get(reply.payload + 12, 8) && get(reply.payload + 36, 4) > 0);
  begin_request(OP_FREEZE);
  CHECK(ask(&reply) == EOPNOTSUPP);
}

static void file(uint32_t channel, uint8_t op, const char *path, uint64_t first, uint64_t second) {
  struct bytes out = {0};
  put_header(&out, 0, FRAME_FILE, 0, channel);
  put_u32(&out, 65536);
  put_u8(&out, op);
  put_u64(&out, first);
  put_u64(&out, second);
  put_u32(&out, (uint32_t)strlen(path));
  bytes_append(&out, path, strlen(path));
  host_end_frame(&out);
  host_send(&out);
  bytes_reset(&out);
}

static int file_outcome(uint8_t op, const char *path, uint64_t first, uint64_t second) {
  uint32_t channel = next_channel++;
  file(channel, op, path, first, second);
  struct ending ending = host_run_to_end(channel);
  CHECK(ending.kind == EXITED);
  ending_free(&ending);
  return ending.code;
}

// In two pieces, and the word that it is all there.
static int file_write(const char *path, uint64_t mode, const char *text) {
  uint32_t channel = next_channel++, length = (uint32_t)strlen(text), half = (length + 1) / 2;
  struct bytes input = {0};
  for (uint32_t at = 0; at < length; at += half) {
    uint32_t count = length - at < half ? length - at : half;
    put_u32(&input, count);
    bytes_append(&input, text + at, count);
  }
  put_u32(&input, 0);
  file(channel, FILE_WRITE, path, mode, 0);
  host_data(channel, 0, bytes_front(&input), bytes_count(&input));
  host_eof(channel, bytes_count(&input));
  bytes_reset(&input);
  struct ending ending = host_run_to_end(channel);
  CHECK(ending.kind == EXITED);
  ending_free(&ending);
  return ending.code;
}

static bool holds(const char *path, mode_t mode, const char *text) {
  char found[64] = "";
  struct stat s;
  FILE *stream = fopen(path, "r");
  if (!stream) return false;
  size_t length = fread(found, 1, sizeof found - 1, stream);
  bool same = fstat(fileno(stream), &s) == 0 && (s.st_mode & 07777) == mode && length == strlen(text) && memcmp(found, text, length) == 0;
  fclose(stream);
  return same;
}

static void serves_sftp(void) {
  static const char asked[] = "\0\0\0\5\1\0\0\0\3" "\0\0\0\12\20\0\0\0\7\0\0\0\1.", answered[] = "\0\0\0\35\150\0\0\0\7\0\0\0\1\0\0\0\4/usr\0\0\0\4/usr";
  uint32_t channel = next_channel++;
  file(channel, FILE_SFTP, "/usr", 0, 0);
  host_data(channel, 0, asked, sizeof asked - 1);
  host_eof(channel, sizeof asked - 1);
  struct ending ending = host_run_to_end(channel);
  CHECK(ending.kind == EXITED && ending.code == 0 && bytes_count(&ending.out[1]) == 0);
  CHECK(memcmp(bytes_front(&ending.out[0]) + 4, "\2\0\0\0\3", 5) == 0 && memmem(bytes_front(&ending.out[0]), bytes_count(&ending.out[0]), answered, sizeof answered - 1));
  ending_free(&ending);
  // Closing it is all it takes, whatever it does.
  file(channel = next_channel++, FILE_SFTP, "/usr", 0, 0);
  host_expect(FRAME_OPENED, 0, channel);
  host_bare(FRAME_CLOSE, 0, channel);
  settle();
}

static int count_in(const char *path) {
  int entries = 0;
  DIR *dir = opendir(path);
  CHECK(dir);
  while (readdir(dir)) entries++;
  closedir(dir);
  return entries - 2;
}

static void works_on_files(void) {
  enum { KEEP = 0xffffffff };
  char top[] = "/tmp/agent-test-XXXXXX", path[300], other[300];
  CHECK(mkdtemp(top));
  snprintf(path, sizeof path, "%s/a/b/file", top);
  CHECK(file_write(path, KEEP, "hello there") == 0 && holds(path, 0644, "hello there"));
  CHECK(file_write(path, 0751, "x") == 0 && holds(path, 0751, "x") && file_write(path, KEEP, "kept mode") == 0 && holds(path, 0751, "kept mode"));
  CHECK(file_write(path, KEEP, "") == 0 && holds(path, 0751, ""));
  CHECK(file_write(path, KEEP, "0123456789") == 0);
  snprintf(other, sizeof other, "%s/a", top);
  CHECK(file_write(other, KEEP, "x") == EISDIR && count_in(other) == 1);
  snprintf(other, sizeof other, "%s/a/b/file/below", top);
  CHECK(file_write(other, KEEP, "x") == ENOTDIR);

  // Through links; one that leads nowhere is replaced.
  snprintf(other, sizeof other, "%s/link", top);
  CHECK(symlink(path, other) == 0 && file_write(other, KEEP, "through") == 0 && holds(path, 0751, "through"));
  struct stat s;
  CHECK(lstat(other, &s) == 0 && S_ISLNK(s.st_mode) && unlink(other) == 0 && symlink("/nowhere/at/all", other) == 0);
  CHECK(file_outcome(FILE_STAT, other, 0, 0) == ENOENT && file_write(other, KEEP, "own") == 0 && holds(other, 0644, "own"));

  uint32_t channel = next_channel++;
  file(channel, FILE_READ, path, 3, 2);
  struct ending ending = host_run_to_end(channel);
  CHECK(ending.code == 0 && ending_wrote(&ending, 1, "ou"));
  ending_free(&ending);
  channel = next_channel++;
  file(channel, FILE_STAT, path, 0, 0);
  ending = host_run_to_end(channel);
  CHECK(ending.code == 0 && bytes_count(&ending.out[0]) == 29 && memcmp(bytes_front(&ending.out[0]) + 4, "filef", 5) == 0);
  ending_free(&ending);

  // Nothing that blocks or is no file; a fifo holds up nobody.
  snprintf(other, sizeof other, "%s/fifo", top);
  CHECK(mkfifo(other, 0600) == 0 && file_outcome(FILE_READ, other, 0, 9) == EINVAL && file_write(other, KEEP, "x") == EINVAL);
  CHECK(file_outcome(FILE_READ, top, 0, 9) == EISDIR && file_outcome(FILE_READ, "/nowhere", 0, 9) == ENOENT && file_outcome(FILE_LIST, path, 9, 0) == ENOTDIR);

  // Given up in the middle: what was there stays, and nothing else.
  int before = count_in(top);
  snprintf(other, sizeof other, "%s/link", top);
  for (int i = 0; i < 3; i++) {
    channel = next_channel++;
    file(channel, FILE_WRITE, other, KEEP, 0);
    host_expect(FRAME_OPENED, 0, channel);
    host_data(channel, 0, "\4\0\0\0half", 8);
    if (i == 0) {
      // Its ACK, and the EOF of the stream it does not have, in either order.
      for (int frames = 0; frames < 2; frames++) CHECK(host_receive().header.channel == channel);
      while (count_in(top) == before) settle();
      host_bare(FRAME_CLOSE, 0, channel);
    } else if (i == 1) {
      host_bare(FRAME_CLOSE, 0, channel);
    } else {
      host_eof(channel, 8);
      ending = host_run_to_end(channel);
      CHECK(ending.kind == EXITED && ending.code == ECANCELED);
      ending_free(&ending);
    }
    while (count_in(top) != before) settle();
    CHECK(holds(other, 0644, "own"));
  }

  // The first of many, in order.
  for (int i = 999; i >= 0; i--) {
    snprintf(other, sizeof other, "%s/many/%04d", top, i * 7 % 1000);
    CHECK(i == 999 ? file_write(other, KEEP, "") == 0 : mkdir(other, 0755) == 0);
  }
  snprintf(other, sizeof other, "%s/many", top);
  channel = next_channel++;
  file(channel, FILE_LIST, other, 3, 0);
  ending = host_run_to_end(channel);
  CHECK(ending.code == 0 && bytes_count(&ending.out[0]) == 1 + 3 * 29 && *bytes_front(&ending.out[0]) == 1);
  for (size_t i = 0; i < 3; i++) CHECK(memcmp(bytes_front(&ending.out[0]) + 1 + 29 * i + 4, (const char *[]){"0000", "0001", "0002"}[i], 4) == 0);
  ending_free(&ending);
  CHECK(file_outcome(FILE_LIST, other, 0, 0) == EINVAL && file_outcome(FILE_LIST, other, 10001, 0) == EINVAL);

  CHECK(file_outcome(FILE_REMOVE, other, 0, 0) == EISDIR && file_outcome(FILE_REMOVE, other, 1, 0) == 0 && access(other, F_OK) != 0);
  CHECK(file_outcome(FILE_REMOVE, "/", 1, 0) == EINVAL && file_outcome(FILE_REMOVE, "/tmp/..", 1, 0) == EINVAL && file_outcome(FILE_REMOVE, "/nowhere", 1, 0) == ENOENT);
  CHECK(file_outcome(FILE_REMOVE, path, 0, 0) == 0 && file_outcome(FILE_REMOVE, path, 0, 0) == ENOENT);
  snprintf(other, sizeof other, "%s//", top);
  CHECK(file_outcome(FILE_REMOVE, other, 1, 0) == 0 && access(top, F_OK) != 0);
}

static void limits_channels(void) {
  uint32_t first = next_channel;
  for (int i = 0; i < CHANNELS_MAX; i++) {
    host_exec(next_channel, (struct program){.argv = {"cat"}, .flags = EXEC_STDIN});
    host_expect(FRAME_OPENED, 0, next_channel++);
  }
  host_exec(next_channel, (struct program){.argv = {"true"}});
  struct frame refused = host_expect(FRAME_EXIT, 0, next_channel);
  CHECK(refused.payload[0] == NOT_STARTED && get(refused.payload + 1, 4) == EAGAIN);
  host_bare(FRAME_CLOSE, 0, next_channel++);
  for (int i = 0; i < CHANNELS_MAX; i++) host_bare(FRAME_CLOSE, 0, first + (uint32_t)i);
  expect_run((struct program){.argv = {"echo", "again"}}, EXITED, 0, "again\n", "");
}

static void hangs_up_on(const char *bytes, size_t length) {
  host_greet();
  host_send_raw(bytes, length);
  host_expect_closed();
}

static void survives_nonsense(void) {
  settle();
  hangs_up_on("\377\377\377\377\1\0\0\0\0\0\0\0", 12);
  hangs_up_on("\0\0\0\0\1\0\1\0\0\0\0\0", 12);
  hangs_up_on("\0\0\0\0\77\0\0\0\0\0\0\0", 12);
  hangs_up_on("\0\0\0\0\2\0\0\0\5\0\0\0", 12);      // EXEC without a payload
  hangs_up_on("\1\0\0\0\15\0\0\0\5\0\0\0\143", 13);  // request of an unknown kind
  hangs_up_on("\6\0\0\0\15\0\0\0\5\0\0\0\10\1\0\0\0/", 18);  // one of a kind that once was
  host_greet();
  host_exec(next_channel, (struct program){.argv = {"cat"}, .flags = EXEC_STDIN});
  host_expect(FRAME_OPENED, 0, next_channel);
  host_data(next_channel, 1, "gap", 3);
  host_expect_closed();
  CHECK(get(host_greet().payload + 21, 4) == 1);
  host_ack(next_channel, 1, 1);  // more than was sent
  host_expect_closed();
  host_greet();
  host_exec(next_channel, (struct program){.argv = {"true"}});  // the channel is taken
  host_expect_closed();
  host_greet();
  host_bare(FRAME_CLOSE, 0, next_channel++);
  settle();
  // Noise and no marker, for as long as the host likes; then a marker in the middle of it.
  char noise[5000];
  memset(noise, 'n', sizeof noise);
  host_connect();
  host_send_raw(noise, sizeof noise);
  host_greet();
  // A connection that says nothing is replaced.
  host_connect();
  CHECK(get(host_greet().payload + 21, 4) == 0);
  expect_run((struct program){.argv = {"echo", "alive"}}, EXITED, 0, "alive\n", "");
}

static int count_entries(const char *format) {
  char path[64];
  snprintf(path, sizeof path, format, host_agent(), host_agent());
  int count = 0;
  DIR *dir = opendir(path);
  CHECK(dir);
  while (readdir(dir)) count++;
  closedir(dir);
  return count;
}

static void leaves_nothing(int descriptors) {
  settle();
  CHECK(count_entries("/proc/%d/fd") == descriptors);
  // Children are reaped on a signal that may be on its way: each round trip gives it time to come.
  char path[64], children[8];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", host_agent(), host_agent());
  for (int tries = 0;; tries++) {
    FILE *file = fopen(path, "r");
    size_t length = fread(children, 1, sizeof children, file);
    fclose(file);
    if (length == 0) break;
    CHECK(tries < 10000);
    settle();
  }
  // Still the process we started, with no report of the sanitizers.
  CHECK(waitpid(host_agent(), NULL, WNOHANG) == 0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  host_start_agent(argv[1]);
  CHECK(get(host_greet().payload + 21, 4) == 0);
  int descriptors = count_entries("/proc/%d/fd");
  static const struct {
    const char *name;
    void (*run)(void);
  } tests[] = {
      {"runs programs", runs_programs},
      {"tells why it did not start", tells_why_it_did_not_start},
      {"runs scripts", runs_scripts},
      {"keeps to the window", keeps_to_the_window},
      {"goes on after a reconnect", goes_on_after_a_reconnect},
      {"takes input", takes_input},
      {"takes input nobody reads", takes_input_nobody_reads},
      {"gives terminals", gives_terminals},
      {"sends signals", sends_signals},
      {"exits before what it left behind", exits_before_what_it_left_behind},
      {"discards", discards},
      {"dials", dials},
      {"answers requests", answers_requests},
      {"works on files", works_on_files},
      {"serves SFTP", serves_sftp},
      {"limits channels", limits_channels},
      {"survives nonsense", survives_nonsense},
  };
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    check_what = tests[i].name;
    tests[i].run();
  }
  check_what = "leaves nothing";
  leaves_nothing(descriptors);
  kill(host_agent(), SIGKILL);
  printf("the agent does what its protocol says\n");
}
