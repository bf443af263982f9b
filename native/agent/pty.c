#define _GNU_SOURCE
#include "pty.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// The locale in here is UTF-8: rubbing out a character takes all of its bytes (termios(3), IUTF8).
static bool edit_utf8(int terminal) {
  struct termios mode;
  if (tcgetattr(terminal, &mode) != 0) return false;
  mode.c_iflag |= IUTF8;
  return tcsetattr(terminal, TCSANOW, &mode) == 0;
}

bool pty_open(uint16_t rows, uint16_t columns, int *master, int *slave) {
  // The devpts instance's own node: unlike /dev/ptmx nobody in the sandbox can put something else there.
  *master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (*master < 0) return false;
  int unlocked = 0;
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  if (ioctl(*master, TIOCSPTLCK, &unlocked) == 0 && ioctl(*master, TIOCSWINSZ, &size) == 0 && edit_utf8(*master)) {
    // By descriptor, not by a path under /dev/pts (ioctl_tty(2), Linux 4.13).
    *slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave >= 0) return true;
  }
  int error = errno;
  close(*master);
  *master = -1;
  errno = error;
  return false;
}
