/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a flow begins: a backend and the way to it, then a source port and its two entries. */
#ifndef MAGLANE_BEGIN_H
#define MAGLANE_BEGIN_H

#include "fib.h"
#include "flow.h"
#include "host.h"
#include "origin.h"
#include "service.h"
#include "snat.h"

/* Whether masqueradeAll wants every client of a frontend masqueraded: of cluster IPs, as in kube-proxy. */
static __always_inline int masquerades_all(const struct frontend *frontend)
{
	const struct node *self = get_node();

	return frontend->kind == FRONTEND_CLUSTER_IP && self && self->flags & NODE_MASQUERADES_ALL;
}

/*
 * Whether answers to v->to, sent to the client itself, come by this node on their own: from this
 * node's backends, and to this node's pods. Not to itself: a pod takes no packet from its own address.
 */
static __always_inline int answers_come_by(const struct packet *p, int local, const struct verdict *v)
{
	if (p->sender == SENDER_POD)
		return !addr_equal(&v->to.daddr, &p->tuple.saddr);
	return p->sender == SENDER_OUTSIDE && local;
}

/*
 * The address to forward from: that of the device which the packet leaves by, or else that of
 * the device which it came in by. Answers to both reach this node, and the programs on it.
 */
static __always_inline int route_from_here(void *ctx, const struct packet *p, struct verdict *v)
{
	struct addr out;

	v->to.saddr = source_on(p->ifindex, p);
	if (!find_route(ctx, p, v))
		return 0;
	out = source_on(v->route.ifindex, p);
	if (!addr_is_unset(&out))
		v->to.saddr = out;
	if (!addr_is_unset(&v->to.saddr))
		return 1;
	decide(v, ACTION_DROP, REASON_DROP_NO_SOURCE);
	return 0;
}

/*
 * How a packet of a new flow gets to v->to, and as whose. What a backend sees is the client
 * itself wherever its answers come by this node on their own, unless it is to see no client at
 * all. All else is masqueraded, and does not go up the stack, which takes what comes in under an
 * address of this node for forged: so a backend that is this node sees the client in any case, in
 * kube-proxy, too. 0: the verdict is made.
 */
static __always_inline int find_way(void *ctx, const struct packet *p,
				    const struct frontend *frontend, int local, struct verdict *v)
{
	decide(v, ACTION_REWRITE, local ? REASON_NEW_LOCAL : REASON_NEW_REMOTE);
	if (answers_come_by(p, local, v) &&
	    (!masquerades_all(frontend) || (local && may_be_held(ctx, p, &v->to, &v->route))))
		return 1;
	v->flow = FLOW_FORWARD;
	if (p->sender == SENDER_NODE) {
		v->flow |= FLOW_NODE;
		/* Nor does a node: as the frontend it comes in where answers of that would. */
		if (local && may_be_held(ctx, p, &v->to, &v->route)) {
			v->to.saddr = p->tuple.daddr;
			v->action = ACTION_INJECT;
			return find_way_in(ctx, p, v);
		}
	}
	v->action = ACTION_SEND;
	return route_from_here(ctx, p, v);
}

/*
 * Second step: a backend, and the way to it. Its id, with v->to complete but for the source
 * port; 0: the verdict is made.
 */
static __noinline __u32 choose(void *ctx, const struct packet *p, const struct frontend *frontend,
			       struct verdict *v)
{
	enum origin origin = origin_of_packet(p);
	struct choice choice = {};
	const struct addr *host;
	enum outcome outcome;

	if (frontend->flags & FRONTEND_SOURCE_RANGES &&
	    !in_source_ranges(frontend->service, &p->tuple.saddr)) {
		decide(v, ACTION_DROP, REASON_DROP_SOURCE_RANGES);
		return 0;
	}
	outcome = choose_for_frontend(frontend, origin, PACKET_ASKS,
				      hash_tuple(&p->tuple), &p->tuple.saddr, &choice);
	if (outcome == CHOSEN && addr_is_v4(&choice.backend->addr) != p->v4)
		outcome = INCONSISTENT;
	switch (outcome) {
	case CHOSEN:
		break;
	case NO_ENDPOINTS:
		decide(v, ACTION_REJECT, REASON_REJECT_NO_ENDPOINTS);
		return 0;
	case NO_LOCAL:
		decide(v, ACTION_DROP, REASON_DROP_NO_LOCAL);
		return 0;
	default:
		decide(v, ACTION_DROP, REASON_DROP_INCONSISTENT);
		return 0;
	}

	v->to = p->tuple;
	v->to.daddr = choice.backend->addr;
	v->to.dport = choice.backend->port;
	host = host_for(p, frontend, origin, choice.id, choice.backend);
	if (host) {
		v->to.saddr = *host;
		if (find_way_to_host(ctx, p, v)) {
			v->flow = FLOW_DSR;
			decide(v, ACTION_WRAP, REASON_NEW_DSR);
			count_connection(choice.backend);
			return choice.id;
		}
		if (!is_datagram_too_long(p, v))
			return 0;
		v->to.saddr = p->tuple.saddr;
	}
	if (!find_way(ctx, p, frontend, choice.backend->flags & BACKEND_LOCAL, v))
		return 0;
	count_connection(choice.backend);
	return choice.id;
}

/*
 * Third step: a source port, and both halves of the flow. 0: done. Otherwise an enum reason.
 * Not static: the verifier then proves it once, and not once for each way that leads here.
 */
__noinline int enter(const struct packet *p, struct verdict *v, __u32 service, __u32 id)
{
	struct flow flow = { .service = service, .backend = id, .seen = coarse_seconds() };
	struct tuple from;
	int failed;

	if (!p || !v) /* so it asks for this, too */
		return REASON_DROP_INCONSISTENT;
	flow.to = reversed(&p->tuple);
	flow.flags = v->flow | FLOW_REPLY;
	/* Who sees the client as it is, sees its port; only when the client uses one port through
	 * two frontends to the same backend, one of the two gets another port. */
	failed = claim_port(&v->to, &flow, hash_tuple(&p->tuple), !(v->flow & FLOW_FORWARD), is_syn(p));
	if (failed)
		return failed;
	flow.to = v->to;
	flow.flags &= ~FLOW_REPLY;
	from = p->tuple; /* a key lies on the stack: kernels before 6.2 take it from nowhere else */
	if (bpf_map_update_elem(&flows, &from, &flow, BPF_ANY))
		return REASON_DROP_FLOWS_FULL;
	note_end(END_DIALLED, &from.daddr, from.dport, from.proto);
	note_end(END_SERVED, &flow.to.daddr, flow.to.dport, flow.to.proto);
	return 0;
}

/* The third step for a flow whose packets go on as they are: it has no other half, and needs no port. Likewise. */
__noinline int enter_dsr(const struct packet *p, const struct verdict *v, __u32 service, __u32 id)
{
	struct flow flow = { .service = service, .backend = id, .seen = coarse_seconds(), .flags = FLOW_DSR };
	struct tuple from;

	if (!p || !v)
		return REASON_DROP_INCONSISTENT;
	from = p->tuple;
	flow.to = v->to;
	if (bpf_map_update_elem(&flows, &from, &flow, BPF_ANY))
		return REASON_DROP_FLOWS_FULL;
	note_end(END_DIALLED, &from.daddr, from.dport, from.proto);
	return 0;
}

#endif
