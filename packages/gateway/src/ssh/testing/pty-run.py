"""Runs a command on a terminal of its own: pty-run.py ROWS COLS COMMAND...; lines `ROWS COLS` on descriptor 3 resize it."""
import fcntl, os, pty, select, signal, struct, sys, termios

def resize(fd, rows, cols):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))

rows, cols, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
pid, master = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
resize(master, rows, cols)
watched = [0, 3, master]
while True:
    for fd in select.select(watched, [], [])[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b''
        if fd == master:
            if not data:
                status = os.waitpid(pid, 0)[1]
                if os.WIFSIGNALED(status):
                    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
                    os.kill(os.getpid(), os.WTERMSIG(status))
                sys.exit(os.WEXITSTATUS(status))
            os.write(1, data)
        elif fd == 3:
            for line in data.decode().split('\n'):
                if line:
                    resize(master, *map(int, line.split()))
            if not data:
                watched.remove(3)
        elif data:
            os.write(master, data)
        else:
            watched.remove(0)
            os.write(master, b'\x04')
