// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Load balancing at the socket: a process that dials a VIP gets a backend's address instead,
 * before any packet exists. The cgroup hooks run for every socket that was made in the
 * agent's cgroup: those of the node and of all its pods.
 */
#include "sock.h"

/* ---- connect ---- */

static __always_inline void forget_dialled(struct bpf_sock *sk)
{
	struct sock_peer *known = bpf_sk_storage_get(&sock_peers, sk, NULL, 0);

	if (!known)
		return;
	uncount(known);
	bpf_sk_storage_delete(&sock_peers, sk);
}

static __always_inline enum reason dial(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct frontend *frontend = find_dialled(ctx, peer);
	struct sock_peer entry = {}, *stored;
	struct choice choice;
	enum reason why;

	if (!frontend) {
		/* A UDP socket may connect again and again: forget what it dialled before. */
		forget_dialled(ctx->sk);
		return REASON_SOCK_FOREIGN;
	}
	why = choose_for_socket(ctx, frontend, peer, bpf_get_prandom_u32(), &choice);
	if (why != REASON_SOCK_TRANSLATED)
		return why;

	entry.vip = peer->addr;
	entry.vip_port = peer->port;
	entry.addr = choice.backend->addr;
	entry.port = choice.backend->port;
	entry.service = frontend->service;
	entry.backend = choice.id;
	stored = bpf_sk_storage_get(&sock_peers, ctx->sk, &entry, BPF_SK_STORAGE_GET_F_CREATE);
	if (stored) {
		uncount(stored);
		entry.counted = entry.backend;
		*stored = entry;
		count_open(entry.counted, 1);
	}
	peer->addr = entry.addr;
	peer->port = entry.port;
	return REASON_SOCK_TRANSLATED;
}

SEC("cgroup/connect4")
int mg_connect4(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer4(ctx);
	enum reason why = dial(ctx, &peer);

	if (why == REASON_SOCK_TRANSLATED)
		set_peer4(ctx, &peer);
	return verdict(why);
}

SEC("cgroup/connect6")
int mg_connect6(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer6(ctx);
	enum reason why = dial(ctx, &peer);

	if (why == REASON_SOCK_TRANSLATED)
		set_peer6(ctx, &peer);
	return verdict(why);
}

/*
 * The last close() of a socket, also that of a process which dies. The entry itself stays as long as
 * the kernel has use for the socket: TCP goes on to say goodbye.
 */
SEC("cgroup/sock_release")
int mg_sock_release(struct bpf_sock *sk)
{
	struct sock_peer *known = bpf_sk_storage_get(&sock_peers, sk, NULL, 0);

	if (known)
		uncount(known);
	return 1;
}

/* ---- UDP with an address on each datagram ---- */

/*
 * Lets recvmsg name the VIP as sender of what the backend answers. Looked up on each datagram
 * because the map evicts entries one by one, and because one backend may serve two VIPs: the
 * one asked last is the one that is answering.
 */
static __always_inline void remember_reply(__u64 cookie, const struct peer *backend,
					   const struct udp_peer *vip)
{
	struct udp_peer_key key = {
		.cookie = cookie, .addr = backend->addr, .port = backend->port, .reply = 1,
	};
	const struct udp_peer *known = bpf_map_lookup_elem(&udp_peers, &key);

	if (!known || known->port != vip->port || !addr_equal(&known->addr, &vip->addr))
		bpf_map_update_elem(&udp_peers, &key, vip, BPF_ANY);
}

/*
 * A socket keeps the backend that it has for a VIP as long as that one serves: many protocols
 * over UDP are conversations. The hook does not run for sends without an address, which go
 * where connect decided.
 */
static __always_inline enum reason send_to(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct frontend *frontend = find_dialled(ctx, peer);
	struct udp_peer_key key = { .addr = peer->addr, .port = peer->port };
	struct udp_peer entry = {};
	struct choice choice = {};
	struct udp_peer *known;
	enum reason why;

	if (!frontend)
		return REASON_SOCK_FOREIGN;
	key.cookie = bpf_get_socket_cookie(ctx);
	entry.service = frontend->service;

	known = bpf_map_lookup_elem(&udp_peers, &key);
	if (known) {
		choice.id = known->backend;
		choice.backend = get_backend(choice.id, frontend->service);
	}
	if (!choice.backend || !(choice.backend->flags & BACKEND_SERVING)) {
		/* The same one again should the entry be lost. */
		why = choose_for_socket(ctx, frontend, peer, hash_u64(key.cookie), &choice);
		if (why != REASON_SOCK_TRANSLATED)
			return why;
		entry.addr = choice.backend->addr;
		entry.port = choice.backend->port;
		entry.backend = choice.id;
		bpf_map_update_elem(&udp_peers, &key, &entry, BPF_ANY);
	}

	peer->addr = choice.backend->addr;
	peer->port = choice.backend->port;
	entry.addr = key.addr;
	entry.port = key.port;
	entry.backend = choice.id;
	remember_reply(key.cookie, peer, &entry);
	return REASON_SOCK_TRANSLATED;
}

SEC("cgroup/sendmsg4")
int mg_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer4(ctx);
	enum reason why = send_to(ctx, &peer);

	if (why == REASON_SOCK_TRANSLATED)
		set_peer4(ctx, &peer);
	return verdict(why);
}

/* The kernel itself takes a v4-mapped destination to sendmsg4. */
SEC("cgroup/sendmsg6")
int mg_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer6(ctx);
	enum reason why = send_to(ctx, &peer);

	if (why == REASON_SOCK_TRANSLATED)
		set_peer6(ctx, &peer);
	return verdict(why);
}

/* ---- the way back: a socket that dialled a VIP hears from the VIP ---- */

/*
 * What connect left on the socket, if it is about this peer. The kernel runs no hook when a
 * socket is disconnected (AF_UNSPEC), so the entry may be old: without a destination port
 * the socket is not connected.
 */
static __always_inline int dialled_as(struct bpf_sock_addr *ctx, struct peer *peer)
{
	const struct sock_peer *known = bpf_sk_storage_get(&sock_peers, ctx->sk, NULL, 0);

	if (!known || ctx->sk->dst_port == 0 || !peer_is(peer, &known->addr, known->port))
		return 0;
	peer->addr = known->vip;
	peer->port = known->vip_port;
	return 1;
}

static __always_inline int heard_from(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct udp_peer_key key = { .addr = peer->addr, .port = peer->port, .reply = 1 };
	const struct udp_peer *known;

	if (dialled_as(ctx, peer))
		return 1;
	key.cookie = bpf_get_socket_cookie(ctx);
	known = bpf_map_lookup_elem(&udp_peers, &key);
	if (!known)
		return 0;
	peer->addr = known->addr;
	peer->port = known->port;
	return 1;
}

SEC("cgroup/recvmsg4")
int mg_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer4(ctx);

	if (heard_from(ctx, &peer))
		set_peer4(ctx, &peer);
	return 1;
}

SEC("cgroup/recvmsg6")
int mg_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer6(ctx);

	if (heard_from(ctx, &peer))
		set_peer6(ctx, &peer);
	return 1;
}

SEC("cgroup/getpeername4")
int mg_getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer4(ctx);

	if (dialled_as(ctx, &peer))
		set_peer4(ctx, &peer);
	return 1;
}

SEC("cgroup/getpeername6")
int mg_getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer peer = get_peer6(ctx);

	if (dialled_as(ctx, &peer))
		set_peer6(ctx, &peer);
	return 1;
}
