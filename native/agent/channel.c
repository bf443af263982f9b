#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "dial.h"
#include "exec.h"

enum {
  FIRST_READ = 4 << 10,
  NEXT_READ = 64 << 10,
  READS_PER_TURN = 4,
  PUMP_BYTES = 64 << 10,
  // A terminal does not say how much it holds; no more than this fits.
  TERMINAL_BYTES = 128 << 10,
};

static struct channel *table[CHANNELS_MAX];
static uint32_t count, turn;

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

// Absolute offsets: the end of what goes to the host, and how far the program's output has been read.
static uint64_t output_tail(const struct output *o) { return o->acked + bytes_count(&o->held); }
static uint64_t output_read_to(const struct output *o) { return output_tail(o) + o->dropped; }

uint32_t channels_count(void) { return count; }

struct channel *channel_find(uint32_t id) {
  for (uint32_t i = 0; i < count; i++) {
    if (table[i]->id == id) return table[i];
  }
  return NULL;
}

struct channel *channel_add(uint32_t id, uint8_t kind, uint32_t window) {
  if (count == CHANNELS_MAX) {
    errno = EAGAIN;
    return NULL;
  }
  struct channel *ch = calloc(1, sizeof *ch);
  if (!ch) return NULL;
  ch->id = id;
  ch->kind = kind;
  ch->window = window < WINDOW_MIN ? WINDOW_MIN : window > WINDOW_MAX ? WINDOW_MAX : window;
  ch->in_fd = ch->out[0].fd = ch->out[1].fd = -1;
  table[count++] = ch;
  return ch;
}

void channel_fail(struct channel *ch, int error, const char *what) {
  ch->state = GONE;
  ch->exit = (struct exit_record){.kind = NOT_STARTED, .code = error};
  snprintf(ch->words, sizeof ch->words, "%.60s: %s", what, strerror(error));
  for (int i = 0; i < 2; i++) {
    close_fd(&ch->out[i].fd);
    ch->out[i].ended = true;
  }
  close_fd(&ch->in_fd);
  bytes_reset(&ch->in);
  ch->taken = ch->received;
}

void channel_close(struct channel *ch) {
  // Work on files ends by a signal it can still take back what is half written at; who sits at a terminal is hung up, by closing it.
  bool hangs_up = ch->pty && !ch->init;
  if (ch->kind != KIND_DIAL && !hangs_up && ch->state == RUNNING) kill(-(pid_t)ch->pid, ch->kind == KIND_FILE ? SIGTERM : SIGKILL);
  if (ch->script) exec_remove_script(ch->id);
  for (int i = 0; i < 2; i++) {
    close_fd(&ch->out[i].fd);
    bytes_reset(&ch->out[i].held);
  }
  close_fd(&ch->in_fd);
  bytes_reset(&ch->in);
  for (uint32_t i = 0; i < count; i++) {
    if (table[i] == ch) table[i] = table[--count];
  }
  free(ch);
}

static void close_input(struct channel *ch) {
  if (ch->in_fd >= 0 && ch->kind == KIND_DIAL) shutdown(ch->in_fd, SHUT_WR);
  close_fd(&ch->in_fd);
}

// On a terminal the end of input is a character, and only while the line discipline looks for it.
static void end_terminal_input(const struct channel *ch) {
  struct termios mode;
  if (tcgetattr(ch->in_fd, &mode) != 0 || !(mode.c_lflag & ICANON)) return;
  if (write(ch->in_fd, &mode.c_cc[VEOF], 1) < 0) return;
}

static void write_input(struct channel *ch) {
  while (bytes_count(&ch->in) > 0 && ch->in_fd >= 0 && ch->state != CONNECTING) {
    ssize_t written = write(ch->in_fd, bytes_front(&ch->in), bytes_count(&ch->in));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) close_fd(&ch->in_fd);
    if (written <= 0) break;
    bytes_take(&ch->in, (size_t)written);
    ch->taken += (size_t)written;
  }
  if (ch->in_fd < 0) {
    // Nobody reads it any more: taken and forgotten, or the host would wait for room for ever.
    bytes_reset(&ch->in);
    ch->taken = ch->received;
  }
  if (bytes_count(&ch->in) > 0 || ch->state == CONNECTING) return;
  bytes_shrink(&ch->in);
  if (ch->in_ended && ch->in_fd >= 0) {
    if (ch->pty) end_terminal_input(ch);
    close_input(ch);
  }
}

bool channel_input(struct channel *ch, uint64_t offset, const uint8_t *bytes, size_t length) {
  if (offset > ch->received) return false;
  // A host that did not hear our last HELLO's count may send again what came.
  uint64_t known = ch->received - offset;
  if (known >= length) return true;
  bytes += known;
  length -= (size_t)known;
  uint64_t base = ch->taken > ch->acked ? ch->taken : ch->acked;
  if (ch->in_ended || ch->received + length - base > STDIN_WINDOW) return false;
  if (bytes_count(&ch->in) == 0 && ch->in_fd >= 0 && ch->state != CONNECTING) {
    ssize_t written = write(ch->in_fd, bytes, length);
    if (written > 0) {
      ch->received += (size_t)written;
      ch->taken += (size_t)written;
      bytes += written;
      length -= (size_t)written;
    }
  }
  bytes_append(&ch->in, bytes, length);
  if (ch->in.failed) {
    ch->in.failed = false;  // out of memory: the rest was not received; the host comes back and sends it again
    return false;
  }
  ch->received += length;
  write_input(ch);
  return true;
}

bool channel_input_end(struct channel *ch, uint64_t total) {
  if (total != ch->received) return false;
  ch->in_ended = true;
  write_input(ch);
  return true;
}

bool channel_acked(struct channel *ch, int stream, uint64_t total) {
  struct output *o = &ch->out[stream - 1];
  if (total > o->reached) return false;
  if (total <= o->acked) return true;
  bytes_take(&o->held, (size_t)(total - o->acked));
  o->acked = total;
  if (o->sent < total) o->sent = total;
  if (o->ended) bytes_shrink(&o->held);
  return true;
}

void channel_discard(struct channel *ch, int stream) {
  struct output *o = &ch->out[stream - 1];
  if (o->discarding || o->ended) return;
  o->discarding = true;
  uint64_t tail = output_tail(o);
  o->dropped += tail - o->reached;
  bytes_keep(&o->held, (size_t)(o->reached - o->acked));
}

void channel_signal(const struct channel *ch, int signal) {
  if (ch->kind != KIND_DIAL && ch->state == RUNNING) kill(-(pid_t)ch->pid, signal);
}

void channel_resize(const struct channel *ch, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  if (ch->pty && ch->out[0].fd >= 0) ioctl(ch->out[0].fd, TIOCSWINSZ, &size);
}

static void end_output(struct output *o) {
  close_fd(&o->fd);
  o->ended = true;
  o->exit_mark = output_read_to(o);
}

static void read_output(struct channel *ch, struct output *o) {
  static uint8_t dropped[FIRST_READ];
  for (int i = 0; i < READS_PER_TURN && o->fd >= 0; i++) {
    size_t room = i ? NEXT_READ : FIRST_READ;
    size_t left = ch->window - bytes_count(&o->held);
    uint8_t *into = dropped;
    if (o->discarding) {
      room = sizeof dropped;
    } else {
      if (room > left) room = left;
      if (room == 0) return;
      into = bytes_reserve(&o->held, room);
      if (!into) {
        o->held.failed = false;  // no memory now: the program waits in its write, and we try again later
        return;
      }
    }
    ssize_t length = read(o->fd, into, room);
    if (length > 0) {
      if (o->discarding)
        o->dropped += (size_t)length;
      else
        bytes_filled(&o->held, (size_t)length);
    } else if (length < 0 && errno == EINTR) {
      continue;
    } else if (length < 0 && errno == EAGAIN) {
      if (ch->state == GONE) o->exit_mark = output_read_to(o);
      return;
    } else {
      end_output(o);
    }
  }
}

// reboot(2) in a process namespace kills its first process with one of two signals that could not end it otherwise: pid_namespaces(7).
static uint8_t exit_kind(const struct channel *ch, int status) {
  if (!WIFSIGNALED(status)) return EXITED;
  if (ch->init && WTERMSIG(status) == SIGHUP) return REBOOTED;
  if (ch->init && WTERMSIG(status) == SIGINT) return POWERED_OFF;
  return SIGNALLED;
}

bool channels_reaped(uint32_t pid, int status, const struct rusage *usage) {
  for (uint32_t i = 0; i < count; i++) {
    struct channel *ch = table[i];
    if (ch->kind == KIND_DIAL || ch->state != RUNNING || ch->pid != pid) continue;
    ch->state = GONE;
    ch->exit = (struct exit_record){
        .kind = exit_kind(ch, status),
        .code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
        .user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec,
        .system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec,
        .max_rss_kib = (uint64_t)usage->ru_maxrss,
    };
    for (int stream = 0; stream < 2; stream++) {
      struct output *o = &ch->out[stream];
      int waiting = 0;
      if (o->fd >= 0 && ch->pty) waiting = TERMINAL_BYTES;
      else if (o->fd >= 0) ioctl(o->fd, FIONREAD, &waiting);
      o->exit_mark = output_read_to(o) + (uint64_t)waiting;
      read_output(ch, o);
    }
    if (ch->script) exec_remove_script(ch->id);
    ch->script = false;
    return true;
  }
  return false;
}

int channels_poll(struct pollfd *fds) {
  int slots = 0;
  for (uint32_t i = 0; i < count; i++) {
    const struct channel *ch = table[i];
    for (int stream = 0; stream < 2; stream++) {
      const struct output *o = &ch->out[stream];
      // A full window is left out altogether: poll would go on reporting the hang-up of a closed pipe.
      bool room = ch->state != CONNECTING && (o->discarding || bytes_count(&o->held) < ch->window);
      fds[slots++] = (struct pollfd){.fd = room ? o->fd : -1, .events = POLLIN};
    }
    bool writing = ch->state == CONNECTING || bytes_count(&ch->in) > 0;
    fds[slots++] = (struct pollfd){.fd = writing ? ch->in_fd : -1, .events = POLLOUT};
  }
  return slots;
}

void channels_serve(const struct pollfd *fds, int slots) {
  for (int slot = 0; slot < slots; slot += CHANNEL_SLOTS) {
    struct channel *ch = table[slot / CHANNEL_SLOTS];
    if (fds[slot + 2].revents) {
      if (ch->state == CONNECTING) dial_connected(ch);
      write_input(ch);
    }
    if (fds[slot].revents) read_output(ch, &ch->out[0]);
    if (fds[slot + 1].revents) read_output(ch, &ch->out[1]);
  }
}

void channels_rewind(struct bytes *out) {
  for (uint32_t i = 0; i < count; i++) {
    struct channel *ch = table[i];
    struct live_channel live = {
        .channel = ch->id,
        .pid = ch->pid,
        .kind = ch->kind,
        .exited = ch->state == GONE,
        .exit_kind = ch->exit.kind,
        .exit_code = ch->exit.code,
        .received = ch->received,
    };
    for (int stream = 0; stream < 2; stream++) {
      struct output *o = &ch->out[stream];
      live.out[stream] = (struct live_stream){o->reached, o->acked, o->ended};
      o->sent = o->acked;
      o->eof_sent = false;
    }
    ch->exit_sent = false;
    // HELLO tells the pid and what has been received: OPENED is not sent again, nor any count below that one.
    if (ch->state != CONNECTING) ch->opened_sent = true;
    ch->acked = ch->received;
    put_live_channel(out, &live);
  }
}

static bool full(const struct bytes *out) { return bytes_count(out) >= PUMP_BYTES; }

// False when `out` is full before everything was queued.
static bool pump_output(struct channel *ch, int stream, struct bytes *out, struct pump *pump) {
  struct output *o = &ch->out[stream];
  for (uint64_t left = output_tail(o) - o->sent; left > 0; left = output_tail(o) - o->sent) {
    if (full(out)) return false;
    uint32_t length = left < DATA_BYTES_MAX ? (uint32_t)left : DATA_BYTES_MAX;
    put_data_head(out, ch->id, (uint8_t)(stream + 1), o->sent, length);
    bytes_append(out, bytes_front(&o->held) + (o->sent - o->acked), length);
    o->sent += length;
    if (o->reached < o->sent) o->reached = o->sent;
  }
  bool tells = ch->exit.kind != NOT_STARTED && (stream == 0 || ch->kind != KIND_DIAL);
  if (!o->ended || o->eof_sent || !tells) return true;
  if (ch->kind != KIND_DIAL && ch->state == RUNNING && !o->eof_waited) {
    o->eof_waited = pump->waiting = true;
    return true;
  }
  put_eof(out, ch->id, (uint8_t)(stream + 1), output_tail(o), o->dropped);
  o->eof_sent = true;
  return true;
}

static bool output_before_exit_sent(const struct output *o) {
  if (output_read_to(o) < o->exit_mark) return false;
  return o->sent >= (o->discarding ? output_tail(o) : o->exit_mark);
}

static bool pump_channel(struct channel *ch, struct bytes *out, struct pump *pump) {
  if (full(out)) return false;
  bool started = ch->state == RUNNING || (ch->state == GONE && ch->exit.kind != NOT_STARTED);
  if (started && !ch->opened_sent) {
    put_opened(out, ch->id, ch->pid);
    ch->opened_sent = true;
  }
  if (ch->taken > ch->acked) {
    put_ack(out, ch->id, ch->taken);
    ch->acked = ch->taken;
  }
  if (!pump_output(ch, 0, out, pump) || !pump_output(ch, 1, out, pump)) return false;
  if (ch->state == GONE && !ch->exit_sent && output_before_exit_sent(&ch->out[0]) && output_before_exit_sent(&ch->out[1])) {
    put_exit(out, ch->id, &ch->exit, ch->words);
    ch->exit_sent = true;
  }
  return true;
}

struct pump channels_pump(struct bytes *out) {
  struct pump pump = {0};
  // The first to be served rotates: one talkative program must not starve the others.
  turn = count ? (turn + 1) % count : 0;
  for (uint32_t i = 0; i < count && !pump.more; i++) pump.more = !pump_channel(table[(turn + i) % count], out, &pump);
  return pump;
}
