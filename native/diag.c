/* SPDX-License-Identifier: Apache-2.0 */
/* sock_diag(7): ending sockets in any network namespace. Blocks, so never on the event loop. */
#define _GNU_SOURCE
#include "maglane.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct visit {
	const char *namespace;
	int sock; /* or a negative errno */
};

/*
 * A socket stays in the namespace that it was made in, a thread in the one that it has entered:
 * so a thread of its own goes in, makes the socket, and ends.
 */
static void *open_inside(void *data)
{
	struct visit *visit = data;
	int namespace = open(visit->namespace, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	visit->sock = -1;
	if (namespace >= 0 && setns(namespace, CLONE_NEWNET) == 0)
		visit->sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (visit->sock < 0)
		visit->sock = -errno;
	if (namespace >= 0)
		close(namespace);
	return NULL;
}

int diag_open(const char *namespace)
{
	struct timeval patience = { .tv_sec = 5 }; /* the kernel answers at once; should it not, nobody hangs */
	struct visit visit = { .namespace = namespace };
	pthread_t thread;
	int error;

	if (!*namespace) {
		visit.sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
		if (visit.sock < 0)
			return -errno;
	} else {
		error = start_thread(&thread, open_inside, &visit);
		if (error)
			return -error;
		pthread_join(thread, NULL);
	}
	if (visit.sock >= 0)
		setsockopt(visit.sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return visit.sock;
}

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 what;
};

int diag_destroy_udp(int sock, const struct socket_id *id)
{
	struct request request = {
		.header = { .nlmsg_len = sizeof(request), .nlmsg_type = SOCK_DESTROY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.what = { .sdiag_family = id->family, .sdiag_protocol = IPPROTO_UDP,
			  .idiag_states = ~0u, .id = id->id },
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr ack;
		char rest[512]; /* the request again, and words for people */
	} answer;
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t length;
	int error;

	if (sendto(sock, &request, sizeof(request), 0, (void *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	do
		length = recv(sock, &answer, sizeof(answer), 0);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return -errno;
	if ((size_t)length < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || answer.header.nlmsg_type != NLMSG_ERROR)
		return -EBADMSG;
	error = answer.ack.error;
	/* Gone or connected elsewhere meanwhile; or nothing that this kernel can end. */
	if (error == -ENOENT || error == -EOPNOTSUPP)
		return 0;
	return error ? error : 1;
}
