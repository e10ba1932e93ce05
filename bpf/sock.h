/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What all socket hooks share: their contexts, the choice of a backend, the one exit. */
#ifndef MAGLANE_SOCK_H
#define MAGLANE_SOCK_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "addr.h"
#include "affinity.h"
#include "config.h"
#include "count.h"
#include "maps.h"
#include "service.h"

/* The other end of a socket call: what it dials or hears from. */
struct peer {
	struct addr addr;
	__be16 port;
};

static __always_inline int peer_is(const struct peer *peer, const struct addr *addr, __be16 port)
{
	return peer->port == port && addr_equal(&peer->addr, addr);
}

/* ---- from a context and back: user_ip4, user_ip6 and user_port are in network order ---- */

static __always_inline struct peer get_peer4(struct bpf_sock_addr *ctx)
{
	return (struct peer){ addr_from_v4(ctx->user_ip4), ctx->user_port };
}

static __always_inline void set_peer4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip4 = addr_v4(&peer->addr);
	ctx->user_port = peer->port;
}

/* An AF_INET6 socket writes an IPv4 address v4-mapped, just as struct addr does. */
static __always_inline struct peer get_peer6(struct bpf_sock_addr *ctx)
{
	__be32 ip[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };

	return (struct peer){ addr_from_v6(ip), ctx->user_port };
}

static __always_inline void set_peer6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip6[0] = peer->addr.w[0];
	ctx->user_ip6[1] = peer->addr.w[1];
	ctx->user_ip6[2] = peer->addr.w[2];
	ctx->user_ip6[3] = peer->addr.w[3];
	ctx->user_port = peer->port;
}

/* ---- which frontend, and a backend of it ---- */

/*
 * To dial 0.0.0.0 or :: is to dial loopback (ip(7), ipv6(7)). Global, so that what follows is proven once, and
 * not for each of its ways: of an IPv6 address the verifier knows no word beforehand. Returns 0.
 */
__noinline int resolve_wildcard(struct addr *a)
{
	if (!a || a->w[0] != 0 || a->w[1] != 0 || a->w[3] != 0)
		return 0;
	if (a->w[2] != V4_MAPPED && a->w[2] != 0)
		return 0;
	a->w[3] = a->w[2] == 0 ? bpf_htonl(1) : bpf_htonl(INADDR_LOOPBACK);
	return 0;
}

/* MPTCP is TCP to whoever does not know it. 0: not a protocol that we translate here. */
static __always_inline __u8 protocol_of(const struct bpf_sock_addr *ctx)
{
	switch (ctx->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
		return IPPROTO_TCP;
	case IPPROTO_UDP:
		return IPPROTO_UDP;
	default:
		return 0;
	}
}

/*
 * Some frontends are not for every socket. Source ranges ask for an address that the socket has
 * not got yet: it dials the VIP itself, and the packet path decides.
 */
static __always_inline int may_use(struct bpf_sock_addr *ctx, const struct frontend *frontend)
{
	if (frontend->flags & FRONTEND_SOURCE_RANGES)
		return 0;
	return !(frontend->flags & FRONTEND_HOST_ONLY) ||
	       bpf_get_netns_cookie(ctx) == config.host_netns;
}

/* The frontend that a socket dials; NULL: none that it may use. */
static __always_inline struct frontend *find_dialled(struct bpf_sock_addr *ctx, struct peer *peer)
{
	__u8 proto = protocol_of(ctx);
	struct frontend *frontend;

	if (proto == 0)
		return NULL;
	resolve_wildcard(&peer->addr);
	frontend = find_frontend(&peer->addr, peer->port, proto);
	return frontend && may_use(ctx, frontend) ? frontend : NULL;
}

/*
 * A socket outside of the node's own namespace is a pod's, as far as detectLocalMode can tell
 * pods of that family at all: where it cannot, kube-proxy has no short circuit for them.
 */
static __always_inline enum origin origin_of(struct bpf_sock_addr *ctx, enum frontend_kind kind,
					     const struct peer *vip)
{
	__u32 detects = NODE_DETECTS_DEVICE;
	const struct node *self;

	if (kind == FRONTEND_CLUSTER_IP || bpf_get_netns_cookie(ctx) == config.host_netns)
		return FROM_INSIDE;
	detects |= addr_is_v4(&vip->addr) ? NODE_DETECTS_V4 : NODE_DETECTS_V6;
	self = get_node();
	return self && self->flags & detects ? FROM_INSIDE : FROM_OUTSIDE;
}

/* Whom affinity remembers: the socket's network namespace, as ff00::<cookie>. */
static __always_inline struct addr client_of(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);

	return (struct addr){
		.w = { bpf_htonl(0xff000000), 0, bpf_htonl(cookie >> 32), bpf_htonl((__u32)cookie) },
	};
}

/* `hash` as pick_backend() wants it. REASON_SOCK_TRANSLATED: `choice` is made. Anything else: why it is not. */
static __always_inline enum reason choose_for_socket(struct bpf_sock_addr *ctx,
						     const struct frontend *frontend,
						     const struct peer *vip, __u32 hash,
						     struct choice *choice)
{
	enum origin origin = origin_of(ctx, frontend->kind, vip);
	struct addr client = client_of(ctx);

	switch (choose_for_frontend(frontend, origin, SOCKET_ASKS, hash, &client, choice)) {
	case CHOSEN:
		/* A socket cannot cross families: an IPv4 context has no room for more. */
		if (addr_is_v4(&choice->backend->addr) != addr_is_v4(&vip->addr))
			return REASON_SOCK_INCONSISTENT;
		count_connection(choice->backend);
		return REASON_SOCK_TRANSLATED;
	case NO_ENDPOINTS:
		return REASON_SOCK_REFUSED;
	case NO_LOCAL:
		return REASON_DROP_NO_LOCAL;
	default:
		return REASON_SOCK_INCONSISTENT;
	}
}

/* ---- how many sockets a backend has: each counts once, from connect() until it is closed ---- */

static __always_inline void count_open(__u32 backend, __s32 by)
{
	struct open_sockets *open = open_sockets_of(backend);

	if (open)
		__sync_fetch_and_add(&open->counted, by);
}

/* Before the entry goes, or is overwritten. */
static __always_inline void uncount(struct sock_peer *peer)
{
	if (peer->counted == 0)
		return;
	count_open(peer->counted, -1);
	peer->counted = 0;
}

/*
 * The one exit of connect and sendmsg. Whatever keeps a socket from its service, it hears
 * ECONNREFUSED: callers expect that, and some loop on errors that they do not know.
 */
static __always_inline int verdict(enum reason why)
{
	count(why, 0);
	if (why == REASON_SOCK_FOREIGN || why == REASON_SOCK_TRANSLATED)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

#endif
