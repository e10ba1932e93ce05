/*
 * The cost of connect() alone: the median of many, in nanoseconds, printed as one number.
 *
 *   connect udp|tcp ADDRESS PORT SECONDS
 *
 * A socket each, of which only connect() is timed. UDP: no packet is sent, so that all of it is the
 * system call. TCP: with the handshake, where what stands in the packets' way shows; closed by RST,
 * so that no TIME_WAIT piles up.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 4000000

static unsigned times[MOST];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static unsigned connect_once(int type, const struct sockaddr_in *to)
{
	const struct linger reset = { .l_onoff = 1 };
	int fd = socket(AF_INET, type, 0);
	double begun, took;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	begun = now();
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to))) {
		perror("connect");
		exit(1);
	}
	took = now() - begun;
	close(fd);
	return took;
}

static int ascending(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	size_t calls = 0;
	double end;
	int type;

	if (argc != 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[3]));
	type = strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM;
	end = now() + atof(argv[4]) * 1e9;
	while (calls < MOST && (calls == 0 || now() < end))
		times[calls++] = connect_once(type, &to);
	qsort(times, calls, sizeof(times[0]), ascending);
	printf("%u\n", times[calls / 2]);
	return 0;
}
