// Channels: programs and connections of the sandbox, each with up to two outputs and one input. They outlive the connection to the host.
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "bytes.h"
#include "codec.h"

// What comes out of a program. `held` is everything from `acked` on: it is sent again on a new connection.
struct output {
  int fd;  // -1: closed
  struct bytes held;
  uint64_t acked, sent;
  uint64_t reached;  // the most that was ever sent; acknowledgements and discarding count from here
  uint64_t dropped;
  uint64_t exit_mark;  // where reading stood, with what was in the pipe, when the first process ended
  bool discarding, ended, eof_waited, eof_sent;
};

//     exec: starting ──spawned──▶ running ──reaped──▶ exited        dial: connecting ──connected──▶ running
//             └── could not ──▶ exited, kind 2                              └── refused ──▶ exited, kind 2
// Work on files (file-work.h) is an exec whose program is the agent itself.
struct channel {
  uint32_t id;
  uint8_t kind;
  enum { CONNECTING, RUNNING, GONE } state;
  bool pty, init, opened_sent, exit_sent, script;
  uint32_t pid;
  uint32_t window;
  struct output out[2];
  struct exit_record exit;
  char words[120];

  int in_fd;
  struct bytes in;
  uint64_t received, taken, acked;
  bool in_ended;

  uint16_t port;  // of a dial
  uint8_t dial_next;
  int dial_error;
};

uint32_t channels_count(void);
struct channel *channel_find(uint32_t id);
// NULL with EAGAIN (too many) or ENOMEM.
struct channel *channel_add(uint32_t id, uint8_t kind, uint32_t window);
// It will never run; `what` and the errno's words go to the host.
void channel_fail(struct channel *ch, int error, const char *what);
void channel_close(struct channel *ch);

// What the host asks of a channel. False: the host broke the protocol.
bool channel_input(struct channel *ch, uint64_t offset, const uint8_t *bytes, size_t count);
bool channel_input_end(struct channel *ch, uint64_t total);
bool channel_acked(struct channel *ch, int stream, uint64_t total);
void channel_discard(struct channel *ch, int stream);
void channel_signal(const struct channel *ch, int signal);
void channel_resize(const struct channel *ch, uint16_t rows, uint16_t columns);

// One slot per descriptor, three at most for each channel.
enum { CHANNEL_SLOTS = 3 };
int channels_poll(struct pollfd *fds);
void channels_serve(const struct pollfd *fds, int count);
// A process of the sandbox ended. False when it is no channel's first process.
bool channels_reaped(uint32_t pid, int status, const struct rusage *usage);

// A new connection: describes every channel and goes back to what was acknowledged.
void channels_rewind(struct bytes *out);
// Queues frames up to a bound. `waiting`: an EOF is held back a moment, because the EXIT that could travel with it is about to come.
struct pump {
  bool more, waiting;
};
struct pump channels_pump(struct bytes *out);
