"""Gives a program a terminal, talks with the shell on it as a person would and changes the window's size in between: talk-on-terminal.py COMMAND..."""
import fcntl, os, pty, re, select, struct, sys, termios

pid, master = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm-256color'
    os.execvp(sys.argv[1], sys.argv[1:])
text = b''

def size(rows, cols):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))

def until(pattern):
    global text
    while not re.search(pattern, text):
        if not select.select([master], [], [], 20)[0]:
            print(text.decode(), 'waited in vain for', pattern)
            sys.exit(1)
        try:
            text += os.read(master, 65536)
        except OSError:
            break

def say(words):
    os.write(master, words)

size(31, 97)
until(rb'[$#] ')
# The quotes inside keep the echo of what is typed apart from what is printed.
say(b"[ -t 0 ] && t=yes; echo si''ze=$(stty size) term=$TERM tty=$t\n")
until(rb'size=.*yes')
size(45, 120)
say(b"""until [ "$(stty size)" = '45 120' ]; do sleep 0.1; done; echo lat''er=$(stty size)\n""")
until(rb'later=45 120')
# Said by the program that is to be interrupted: then it is on the terminal.
say(b"""sh -c 'echo sl""eeps; exec sleep 60'\n""")
until(rb'sleeps')
say(b'\x03')
say(b"echo inter''rupted\n")
until(rb'interrupted')
say(b'exit 5\n')
until(rb'never said')
print(text.decode())
print('code=%d' % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
