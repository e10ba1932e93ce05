// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reads out which sockets came through the hooks: iterators over the map `sock_peers`, that is over
 * the sockets of all network namespaces at once. sock_diag, which could list a namespace's sockets
 * with their storage, does so for TCP alone.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "addr.h"
#include "maps.h"

#define AF_INET 2
#define AF_INET6 10
#define CONNECTED 1 /* TCP_ESTABLISHED: a connected UDP socket is called that, too */

/* The few fields of the kernel's structures that are read; libbpf finds their places when it loads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct net {
	struct {
		unsigned int inum;
	} ns;
};

struct in6_addr___kernel {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	struct {
		struct net *net;
	} skc_net;
	struct in6_addr___kernel skc_v6_daddr;
	struct in6_addr___kernel skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u8 sk_kern_sock : 1;
	__u16 sk_protocol;
	struct socket *sk_socket;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

static __always_inline void read_id(struct sock *sk, struct sock_id *id)
{
	struct sock_common *common = &sk->__sk_common;
	__u64 cookie = bpf_get_socket_cookie(sk);
	int i;

	id->family = common->skc_family;
	id->sport = bpf_htons(common->skc_num);
	id->dport = common->skc_dport;
	id->ifindex = common->skc_bound_dev_if;
	id->cookie[0] = cookie;
	id->cookie[1] = cookie >> 32;
	if (id->family == AF_INET) {
		id->src[0] = common->skc_rcv_saddr;
		id->dst[0] = common->skc_daddr;
		return;
	}
	for (i = 0; i < 4; i++) {
		id->src[i] = common->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
		id->dst[i] = common->skc_v6_daddr.in6_u.u6_addr32[i];
	}
}

/* No hook runs where a connect() fails in the end: then the entry is about another peer than the socket has. */
static __always_inline int is_about(const struct sock_peer *peer, const struct sock_id *id)
{
	struct addr dst = id->family == AF_INET ? addr_from_v4(id->dst[0]) : addr_from_v6(id->dst);

	return peer->port == id->dport && addr_equal(&peer->addr, &dst);
}

/* One that is closed stays about for a while, without an owner. */
static __always_inline int is_connected_udp(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_UDP && sk->__sk_common.skc_state == CONNECTED &&
	       sk->sk_socket != NULL;
}

SEC("iter/bpf_sk_storage_map")
int mg_udp_dialled(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const struct sock_peer *peer = ctx->value;
	struct sock *sk = ctx->sk;
	struct udp_dialled found = {};

	if (!sk || !peer || !is_connected_udp(sk))
		return 0;
	found.netns = sk->__sk_common.skc_net.net->ns.inum;
	found.peer = *peer;
	read_id(sk, &found.id);
	if (is_about(&found.peer, &found.id))
		bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

/*
 * Finds the sockets that their backends should count: those whose close() will be seen, which a
 * kernel's own is not. It writes nothing, so that all are found in one reading: the kernel goes on
 * with a second one by counting, and would miss some.
 */
SEC("iter/bpf_sk_storage_map")
int mg_find_open(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const struct sock_peer *peer = ctx->value;
	struct sock *sk = ctx->sk;
	struct open_sockets *open;
	__u32 backend;

	if (!sk || !peer || !sk->sk_socket || BPF_CORE_READ_BITFIELD(sk, sk_kern_sock))
		return 0;
	backend = peer->counted;
	open = backend == 0 ? NULL : bpf_map_lookup_elem(&open_sockets, &backend);
	if (open)
		__sync_fetch_and_add(&open->found, 1);
	return 0;
}
