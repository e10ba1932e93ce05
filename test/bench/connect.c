/*
 * The cost of connect() alone: nanoseconds for each, printed as one number.
 *
 *   connect udp|tcp ADDRESS PORT SECONDS
 *
 * UDP: one socket that connects again and again: no packet, so all of it is the system call. TCP: a
 * socket each, of which only connect() is timed: with the handshake, which is where a proxy in the
 * packet's way shows. It is closed by RST, so that no TIME_WAIT piles up.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void dial(int fd, const struct sockaddr_in *to)
{
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		fail("connect");
}

static double udp(const struct sockaddr_in *to, double end, long *calls)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	double begun = now();

	do {
		for (int i = 0; i < 1000; i++)
			dial(fd, to);
		*calls += 1000;
	} while (now() < end);
	return now() - begun;
}

static double tcp(const struct sockaddr_in *to, double end, long *calls)
{
	struct linger reset = { .l_onoff = 1 };
	double spent = 0;

	do {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		double begun;

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		begun = now();
		dial(fd, to);
		spent += now() - begun;
		*calls += 1;
		close(fd);
	} while (now() < end);
	return spent;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	long calls = 0;
	double spent, end;

	if (argc != 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[3]));
	end = now() + atof(argv[4]) * 1e9;
	spent = (strcmp(argv[1], "udp") ? tcp : udp)(&to, end, &calls);
	printf("%.1f\n", spent / calls);
	return 0;
}
