/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet that is sent on leaves, and with which address of this node. */
#ifndef MAGLANE_FIB_H
#define MAGLANE_FIB_H

#include "flow.h"
#include "verdict.h"
#include "way.h"

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

/* The address to forward from out of a device, of the family of `p`; all zero: it has none. */
static __always_inline struct addr source_on(__u32 ifindex, const struct packet *p)
{
	const struct device *device = bpf_map_lookup_elem(&devices, &ifindex);

	if (!device)
		return (struct addr){};
	return p->v4 ? device->addr4 : device->addr6;
}

/*
 * XDP sends what leaves by a device that takes it from there. Not out of a VLAN: the route
 * would have to be asked about the VLAN's device, which XDP does not know.
 */
static __always_inline int xdp_can_send(const struct packet *p, __u32 ifindex)
{
	const struct device *device;

	if (p->tagged)
		return 0;
	device = bpf_map_lookup_elem(&devices, &ifindex);
	return device && device->flags & DEVICE_XDP_TX;
}

/*
 * What the routing table says of a tuple, as if it had come in where `p` did, and of a packet of
 * that length (0: of any): a BPF_FIB_LKUP_RET_*, or an error below 0.
 */
static __noinline int ask_route(void *ctx, const struct packet *p, const struct tuple *t,
				__u32 length, struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = t->proto;
	fib->sport = t->sport;
	fib->dport = t->dport;
	fib->ifindex = p->ifindex;
	fib->tot_len = length < 0xffff ? length : 0xffff;
	if (p->v4) {
		fib->family = AF_INET;
		fib->ipv4_src = addr_v4(&t->saddr);
		fib->ipv4_dst = addr_v4(&t->daddr);
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, t->saddr.w, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, t->daddr.w, sizeof(fib->ipv6_dst));
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/*
 * Whether an interface of this node holds a tuple's destination, as far as one can tell: the
 * table gives the same answer for an address that it has no route to at all, and says nothing
 * where forwarding is off.
 */
static __always_inline int may_be_held(void *ctx, const struct packet *p, const struct tuple *t,
				       struct bpf_fib_lookup *fib)
{
	int found = ask_route(ctx, p, t, 0, fib);

	return found < 0 || found == BPF_FIB_LKUP_RET_NOT_FWDED ||
	       found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/*
 * Asks the routing table about v->to, before anything is rewritten: 1: the packet can leave
 * along v->route. 0: the verdict says what becomes of it. XDP leaves to tc what it cannot
 * send: there, a neighbour that is not known yet is resolved and any device will do.
 */
static __always_inline int find_route(void *ctx, const struct packet *p, struct verdict *v)
{
	int found;

	if (p->ttl <= 1) {
		decide(v, ACTION_REJECT, REASON_DROP_TTL);
		return 0;
	}
	if (recall_way(p, v))
		return 1;
	found = ask_route(ctx, p, &v->to, p->l3_len, &v->route);

	if (p->hook == HOOK_XDP) {
		if (found == BPF_FIB_LKUP_RET_SUCCESS && xdp_can_send(p, v->route.ifindex)) {
			note_way(p, v);
			return 1;
		}
		decide(v, ACTION_PASS, REASON_TO_TC);
		return 0;
	}
	if (found == BPF_FIB_LKUP_RET_SUCCESS)
		note_way(p, v);
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return 1;
	/* Also where it may be fragmented on the way (no DF): we cannot, but its sender can. */
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		decide(v, ACTION_REJECT, REASON_TOO_BIG);
	else
		decide(v, ACTION_DROP, REASON_DROP_NO_ROUTE);
	return 0;
}

/*
 * For what becomes v->to and is this node's own: the device by which v->to's source would be
 * reached, in v->route. It has to come in there, or a strict rp_filter drops it. The node has
 * just sent that way, so the neighbour is known, and with it the device's own address. 1 or 0,
 * as find_route().
 */
static __always_inline int find_way_in(void *ctx, const struct packet *p, struct verdict *v)
{
	struct tuple back = reversed(&v->to);

	if (p->hook == HOOK_XDP) {
		decide(v, ACTION_PASS, REASON_TO_TC);
		return 0;
	}
	if (ask_route(ctx, p, &back, 0, &v->route) == BPF_FIB_LKUP_RET_SUCCESS)
		return 1;
	decide(v, ACTION_DROP, REASON_DROP_NO_ROUTE);
	return 0;
}

#endif
