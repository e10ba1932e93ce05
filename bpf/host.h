/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets from outside that go to another node's backend as they are (direct server return): the node
 * of the backend gets them wrapped, does the translation, and answers the client itself. Whose
 * they are is decided here; wrap.h knows their bytes. See docs/decisions/dsr.md.
 */
#ifndef MAGLANE_HOST_H
#define MAGLANE_HOST_H

#include "config.h"
#include "fib.h"
#include "origin.h"
#include "service.h"

/* What the wrapping adds to a packet, bytes. Outside it is of the family that it is inside. */
#define WRAP_V4 48
#define WRAP_V6 80

/* The address of this node, as the others know it, of the family of `p`; NULL: they know none. */
static __always_inline const struct addr *own_address(const struct packet *p)
{
	const struct node *self = get_node();

	if (!self || !(self->flags & (p->v4 ? NODE_ADDRESS_V4 : NODE_ADDRESS_V6)))
		return NULL;
	return &self->addr[p->v4 ? 0 : 1];
}

/* As different as flows are, so that they spread over paths and queues: a port of those for private use (RFC 8926, 3.3). */
static __always_inline __be16 wrap_source_port(const struct tuple *t)
{
	return bpf_htons(0xc000 | (hash_tuple(t) & 0x3fff));
}

/* Whether a packet may be wrapped: it is at the port of such, and its ports are to be seen. */
static __always_inline int may_be_wrapped(const struct packet *p)
{
	return config.dsr_port && p->tuple.dport == config.dsr_port && p->tuple.proto == IPPROTO_UDP &&
	       p->kind == KIND_PLAIN && !p->fragment && !p->tagged;
}

/* Whether a packet was sent to this node by another one of the cluster. */
static __always_inline int is_from_peer(const struct packet *p)
{
	const struct addr *own = own_address(p);
	struct addr peer = p->tuple.saddr; /* on the stack: kernels before 6.2 take a key from nowhere else */

	return own && addr_equal(own, &p->tuple.daddr) && bpf_map_lookup_elem(&peers, &peer);
}

/*
 * The node to which a new flow's packets go as they are; NULL: they are masqueraded. Not from pods, which
 * the backend's node may reach by another way than this one, and not to cluster IPs; nor from behind a tag
 * that is still in the frame, where the kernel finds no room for the wrapping.
 */
static __always_inline const struct addr *host_for(const struct packet *p, const struct frontend *frontend,
						   enum origin origin, __u32 id, const struct backend *backend)
{
	if (!config.dsr_port || !(backend->flags & BACKEND_HOSTED) || backend->flags & BACKEND_LOCAL)
		return NULL;
	if (p->sender != SENDER_OUTSIDE || origin != FROM_OUTSIDE || frontend->kind == FRONTEND_CLUSTER_IP)
		return NULL;
	if (p->tagged || !own_address(p))
		return NULL;
	return bpf_map_lookup_elem(&hosts, &id);
}

/*
 * Asks the routing table for the way to the node v->to.saddr, for a packet and its wrapping: 1: it is in
 * v->route. 0: the verdict says what becomes of the packet. XDP leaves to tc what it cannot send.
 */
static __noinline int find_way_to_host(void *ctx, const struct packet *p, struct verdict *v)
{
	struct tuple outer = { .dport = config.dsr_port, .proto = IPPROTO_UDP };
	const struct addr *own = own_address(p);
	__u32 size = p->v4 ? WRAP_V4 : WRAP_V6;
	int found;

	if (!own) {
		decide(v, ACTION_DROP, REASON_DROP_NO_SOURCE);
		return 0;
	}
	if (p->ttl <= 1) {
		decide(v, ACTION_REJECT, REASON_DROP_TTL);
		return 0;
	}
	outer.saddr = *own;
	outer.daddr = v->to.saddr;
	outer.sport = wrap_source_port(&p->tuple);
	found = ask_route(ctx, p, &outer, p->l3_len ? p->l3_len + size : 0, &v->route);
	if (p->hook == HOOK_XDP) {
		if (found == BPF_FIB_LKUP_RET_SUCCESS && xdp_can_send(p, v->route.ifindex))
			return 1;
		decide(v, ACTION_PASS, REASON_TO_TC);
		return 0;
	}
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return 1;
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		v->route.mtu_result -= size; /* what its sender has of it */
		decide(v, ACTION_REJECT, REASON_TOO_BIG);
	} else {
		decide(v, ACTION_DROP, REASON_DROP_NO_ROUTE);
	}
	return 0;
}

/* A datagram that is too long with its wrapping is masqueraded instead, and so is its flow from then on. */
static __always_inline int is_datagram_too_long(const struct packet *p, const struct verdict *v)
{
	return v->why == REASON_TOO_BIG && p->tuple.proto == IPPROTO_UDP;
}

#endif
