/*
 * A web server for sandboxes of tests, one process for each connection: web-server <address> <port> [seconds before it listens].
 * What it answers is in `answer`; everything it is sent is believed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_MAX = 65536, BLOCK = 65536, FRAME_MAX = 65535 };

static const char *upload_path = "/root/upload";
static const char *release_path = "/root/release";

/* Address and port, as they were given. */
static char **place_given;

/* What came and was not used yet. */
static char input[HEAD_MAX + BLOCK];
static size_t input_length;

static void send_all(int fd, const void *data, size_t length)
{
	const char *at = data;
	while (length > 0) {
		ssize_t count = send(fd, at, length, MSG_NOSIGNAL);
		if (count <= 0)
			_exit(0);
		at += count;
		length -= (size_t)count;
	}
}

static void send_text(int fd, const char *text)
{
	send_all(fd, text, strlen(text));
}

static void send_answer(int fd, const char *status, const char *type, const char *body, size_t length)
{
	char head[256];
	int size = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, length);
	send_all(fd, head, (size_t)size);
	send_all(fd, body, length);
}

/* At least `wanted` bytes, or the end of the process with the connection. */
static void receive(int fd, size_t wanted)
{
	while (input_length < wanted) {
		ssize_t count = recv(fd, input + input_length, sizeof(input) - input_length, 0);
		if (count <= 0)
			_exit(0);
		input_length += (size_t)count;
	}
}

static void drop(size_t count)
{
	memmove(input, input + count, input_length - count);
	input_length -= count;
}

/* The value of a header field, NULL when there is none. */
static const char *field_of(const char *head, const char *name, char *value, size_t size)
{
	size_t length = strlen(name);
	for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, name, length) != 0 || line[2 + length] != ':')
			continue;
		const char *from = line + 3 + length;
		while (*from == ' ')
			from++;
		snprintf(value, size, "%.*s", (int)strcspn(from, "\r\n"), from);
		return value;
	}
	return NULL;
}

static uint32_t rotate(uint32_t word, int bits)
{
	return word << bits | word >> (32 - bits);
}

/* SHA-1 (RFC 3174) of at most 119 bytes: all that a WebSocket handshake needs. */
static void sha1(const char *text, size_t length, uint8_t digest[20])
{
	uint8_t message[128] = {0};
	size_t padded = length < 56 ? 64 : 128;
	memcpy(message, text, length);
	message[length] = 0x80;
	for (int i = 0; i < 8; i++)
		message[padded - 1 - (size_t)i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
	uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	for (const uint8_t *block = message; block < message + padded; block += 64) {
		uint32_t words[80];
		for (int i = 0; i < 16; i++)
			words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
		for (int i = 16; i < 80; i++)
			words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
		uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
		for (int i = 0; i < 80; i++) {
			uint32_t mix = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
			static const uint32_t constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
			uint32_t next = rotate(a, 5) + mix + e + words[i] + constants[i / 20];
			e = d, d = c, c = rotate(b, 30), b = a, a = next;
		}
		state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
	}
	for (int i = 0; i < 20; i++)
		digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *bytes, size_t length, char *text)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < length; i += 3) {
		uint32_t three = (uint32_t)bytes[i] << 16 | (i + 1 < length ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < length ? bytes[i + 2] : 0);
		*text++ = letters[three >> 18];
		*text++ = letters[three >> 12 & 63];
		*text++ = i + 1 < length ? letters[three >> 6 & 63] : '=';
		*text++ = i + 2 < length ? letters[three & 63] : '=';
	}
	*text = '\0';
}

/* GET /ws: sends every message back until the other side closes (RFC 6455). */
static void echo_messages(int fd, const char *head)
{
	char key[64], text[128], accept[32], answer[256];
	uint8_t digest[20];
	if (field_of(head, "sec-websocket-key", key, sizeof(key)) == NULL)
		_exit(0);
	int length = snprintf(text, sizeof(text), "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
	sha1(text, (size_t)length, digest);
	base64(digest, sizeof(digest), accept);
	snprintf(answer, sizeof(answer), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
	send_text(fd, answer);
	for (;;) {
		receive(fd, 6);
		uint8_t first = (uint8_t)input[0];
		size_t size = (uint8_t)input[1] & 127, at = 2;
		if (size == 127)
			_exit(0);
		if (size == 126) {
			receive(fd, 8);
			size = (size_t)(uint8_t)input[2] << 8 | (uint8_t)input[3];
			at = 4;
		}
		receive(fd, at + 4 + size);
		char frame[4 + FRAME_MAX];
		size_t front = size < 126 ? 2 : 4;
		frame[0] = (char)first;
		frame[1] = (char)(size < 126 ? size : 126);
		if (front == 4)
			frame[2] = (char)(size >> 8), frame[3] = (char)size;
		for (size_t i = 0; i < size; i++)
			frame[front + i] = (char)(input[at + 4 + i] ^ input[at + i % 4]);
		send_all(fd, frame, front + size);
		if ((first & 15) == 8)
			_exit(0);
		drop(at + 4 + size);
	}
}

/* GET /events: one event at once, the second after GET /release. */
static void send_events(int fd)
{
	send_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n");
	while (access(release_path, F_OK) != 0)
		usleep(10000);
	send_text(fd, "e\r\ndata: second\n\n\r\n0\r\n\r\n");
	unlink(release_path);
}

/* PUT /upload: kept in a file. */
static void take_upload(int fd, size_t length)
{
	int file = open(upload_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	while (length > 0) {
		receive(fd, 1);
		size_t part = input_length < length ? input_length : length;
		if (write(file, input, part) != (ssize_t)part)
			_exit(1);
		drop(part);
		length -= part;
	}
	close(file);
	send_answer(fd, "201 Created", "text/plain", "kept\n", 5);
}

/* GET /upload: what was kept. With `slow` only half of it, and then nothing more. */
static void send_upload(int fd, int slow)
{
	struct stat status;
	int file = open(upload_path, O_RDONLY);
	if (file < 0 || fstat(file, &status) != 0)
		_exit(1);
	char head[128], block[BLOCK];
	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)status.st_size);
	send_text(fd, head);
	off_t left = slow ? status.st_size / 2 : status.st_size;
	while (left > 0) {
		ssize_t count = read(file, block, left < BLOCK ? (size_t)left : BLOCK);
		if (count <= 0)
			_exit(1);
		send_all(fd, block, (size_t)count);
		left -= count;
	}
	close(file);
	if (slow)
		pause();
}

static const char page[] =
	"<!doctype html><title>In the sandbox</title><h1>In the sandbox</h1><p id=echo></p><script>\n"
	"const socket = new WebSocket(`ws${location.protocol.slice(4)}//${location.host}/ws`)\n"
	"socket.onopen = () => socket.send('through the gateway')\n"
	"socket.onmessage = ({ data }) => { document.getElementById('echo').textContent = data }\n"
	"</script>\n";

static void answer(int fd, const char *head, size_t body_length)
{
	char path[256] = "";
	sscanf(head, "%*31s %255[^ ?]", path);
	if (strcmp(path, "/") == 0)
		send_answer(fd, "200 OK", "text/html", page, sizeof(page) - 1);
	else if (strcmp(path, "/head") == 0)
		send_answer(fd, "200 OK", "text/plain", head, strlen(head));
	else if (strcmp(path, "/place") == 0) {
		char text[128];
		int length = snprintf(text, sizeof(text), "%s:%s\n", place_given[0], place_given[1]);
		send_answer(fd, "200 OK", "text/plain", text, (size_t)length);
	} else if (strcmp(path, "/ws") == 0)
		echo_messages(fd, head);
	else if (strcmp(path, "/events") == 0)
		send_events(fd);
	else if (strcmp(path, "/release") == 0) {
		close(open(release_path, O_WRONLY | O_CREAT, 0600));
		send_answer(fd, "200 OK", "text/plain", "", 0);
	} else if (strcmp(path, "/upload") == 0 && strncmp(head, "PUT ", 4) == 0)
		take_upload(fd, body_length);
	else if (strcmp(path, "/upload") == 0)
		send_upload(fd, 0);
	else if (strcmp(path, "/half") == 0)
		send_upload(fd, 1);
	else if (strcmp(path, "/dies") == 0) {
		send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning");
		_exit(0);
	} else
		send_answer(fd, "404 Not Found", "text/plain", "no such path\n", 13);
}

static void serve(int fd)
{
	for (;;) {
		char head[HEAD_MAX], value[64], *end;
		receive(fd, 1);
		while ((end = memmem(input, input_length, "\r\n\r\n", 4)) == NULL)
			receive(fd, input_length + 1);
		size_t length = (size_t)(end - input) + 4;
		if (length >= sizeof(head))
			_exit(0);
		memcpy(head, input, length);
		head[length] = '\0';
		drop(length);
		if (field_of(head, "expect", value, sizeof(value)) != NULL)
			send_text(fd, "HTTP/1.1 100 Continue\r\n\r\n");
		size_t body_length = field_of(head, "content-length", value, sizeof(value)) == NULL ? 0 : strtoull(value, NULL, 10);
		answer(fd, head, body_length);
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	place_given = argv + 1;
	signal(SIGCHLD, SIG_IGN);
	if (argc > 3)
		sleep((unsigned int)atoi(argv[3]));
	struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	int on = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (inet_pton(AF_INET, argv[1], &place.sin_addr) != 1 || setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(listening, (struct sockaddr *)&place, sizeof(place)) != 0 || listen(listening, 256) != 0) {
		perror("web-server");
		return 1;
	}
	puts("listening");
	fflush(stdout);
	for (;;) {
		int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (fork() == 0) {
			close(listening);
			serve(fd);
		}
		close(fd);
	}
}
