/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink: dumps and requests, as much of it as this addon needs. */
#include "maglane.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE_ROOM 32768 /* the most that the kernel puts into one message of a dump */
#define DUMP_TRIES 5

int netlink_open(int protocol, uint32_t groups)
{
	struct sockaddr_nl own = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), error;

	if (sock < 0)
		return -errno;
	if (bind(sock, (struct sockaddr *)&own, sizeof(own)) == 0)
		return sock;
	error = errno;
	close(sock);
	return -error;
}

/* Messages of one recv(). 1: the answer goes on; 0: it is over; below: -errno. */
static int netlink_take(const struct nlmsghdr *message, size_t length, netlink_each each, void *data, bool *torn)
{
	for (; NLMSG_OK(message, length); message = NLMSG_NEXT(message, length)) {
		const struct nlmsgerr *answer = NLMSG_DATA(message);
		int error;

		*torn |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
		if (message->nlmsg_type == NLMSG_DONE)
			return 0;
		if (message->nlmsg_type == NLMSG_ERROR)
			return answer->error; /* 0: the acknowledgement of a request */
		error = each ? each(message, data) : 0;
		if (error)
			return error;
	}
	return 1;
}

static int netlink_ask(int sock, const struct nlmsghdr *request, netlink_each each, void *data, bool *torn)
{
	static _Thread_local char room[MESSAGE_ROOM] __attribute__((aligned(NLMSG_ALIGNTO)));
	int more = 1;

	if (send(sock, request, request->nlmsg_len, 0) < 0)
		return -errno;
	while (more > 0) {
		ssize_t length = recv(sock, room, sizeof(room), 0);

		if (length < 0 && errno != EINTR)
			return -errno;
		if (length > 0)
			more = netlink_take((void *)room, length, each, data, torn);
	}
	return more;
}

int netlink_dump(int sock, struct nlmsghdr *request, netlink_each each, netlink_restart restart, void *data)
{
	int error = 0;

	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	for (int try = 0; try < DUMP_TRIES; try++) {
		bool torn = false;

		request->nlmsg_seq++;
		if (restart)
			restart(data);
		error = netlink_ask(sock, request, each, data, &torn);
		if (error || !torn)
			return error;
	}
	return 0; /* changing all the time: the last reading is as good as any */
}

int netlink_request(int sock, struct nlmsghdr *request)
{
	bool torn = false;

	request->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	return netlink_ask(sock, request, NULL, NULL, &torn);
}

void netlink_attributes(const void *first, size_t length, const struct nlattr **found, size_t count)
{
	const uint8_t *at = first;

	memset(found, 0, count * sizeof(*found));
	while (length >= sizeof(struct nlattr)) {
		const struct nlattr *attribute = (const void *)at;
		size_t size = attribute->nla_len, step = NLA_ALIGN(size);
		size_t type = attribute->nla_type & NLA_TYPE_MASK;

		if (size < sizeof(*attribute) || size > length)
			return;
		if (type < count)
			found[type] = attribute;
		if (step >= length)
			return;
		at += step;
		length -= step;
	}
}

uint32_t netlink_u32(const struct nlattr *attribute)
{
	uint32_t value = 0;

	if (attribute && attribute->nla_len >= NLA_HDRLEN + sizeof(value))
		memcpy(&value, netlink_data(attribute), sizeof(value));
	return value;
}

const char *netlink_text(const struct nlattr *attribute)
{
	const char *text;

	if (!attribute || attribute->nla_len <= NLA_HDRLEN)
		return "";
	text = netlink_data(attribute);
	return text[attribute->nla_len - NLA_HDRLEN - 1] == '\0' ? text : "";
}
