/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What becomes of the packets of known flows. */
#ifndef MAGLANE_KNOWN_H
#define MAGLANE_KNOWN_H

#include "fib.h"
#include "flow.h"
#include "host.h"
#include "service.h"
#include "snat.h"

/*
 * Whether a packet, rewritten as its flow says, is this node's own: the answer to what it sent
 * itself, or what it sends to a backend that is this node too, masqueraded as the frontend.
 */
static __always_inline int comes_in_anew(const struct packet *p, const struct flow *flow)
{
	if (!(flow->flags & FLOW_NODE))
		return 0;
	return flow->flags & FLOW_REPLY || addr_equal(&flow->to.saddr, &p->tuple.daddr);
}

/* A packet of a known flow. */
static __always_inline void follow(void *ctx, const struct packet *p, const struct flow *flow,
				   struct verdict *v)
{
	enum reason why = flow->flags & FLOW_REPLY ? REASON_REPLY_REMOTE : REASON_REMOTE;

	v->to = flow->to;
	if (flow->flags & FLOW_DSR) {
		if (find_way_to_host(ctx, p, v))
			decide(v, ACTION_WRAP, REASON_DSR);
	} else if (!(flow->flags & FLOW_FORWARD)) {
		decide(v, ACTION_REWRITE, REASON_LOCAL);
	} else if (comes_in_anew(p, flow)) {
		if (find_way_in(ctx, p, v))
			decide(v, ACTION_INJECT, why);
	} else if (find_route(ctx, p, v)) {
		decide(v, ACTION_SEND, why);
	}
}

/* Whether the backend of a flow is still the frontend's to choose, and to be reached in the flow's way. */
static __always_inline int still_serves(const struct flow *flow, const struct frontend *frontend)
{
	const struct backend *backend = get_backend(flow->backend, frontend->service);

	return backend && backend->flags & BACKEND_SERVING &&
	       (!(flow->flags & FLOW_DSR) || backend->flags & BACKEND_HOSTED) &&
	       backend->port == flow->to.dport && addr_equal(&backend->addr, &flow->to.daddr);
}

/*
 * The flow that a packet is a part of; NULL: none. Neither is it one of a local backend's
 * answers: those are told on their way out.
 */
static __always_inline struct flow *flow_of(const struct packet *p)
{
	const struct tuple *t = &p->tuple;
	struct flow *flow;

	if (!is_snat_port(t->dport) && !end_may_be(END_DIALLED, &t->daddr, t->dport, t->proto))
		return NULL;
	flow = find_flow(t);
	if (!flow || (flow->flags & (FLOW_REPLY | FLOW_FORWARD)) == FLOW_REPLY)
		return NULL;
	/* An earlier agent's: nothing is sent so any more. */
	if (!config.dsr_port && flow->flags & FLOW_DSR)
		return NULL;
	return flow;
}

/*
 * Whether a packet of a known flow stays with it whatever has become of its frontend: an answer,
 * and a connection, which is never taken from its backend. A datagram is free to go where it is
 * served, and so is a SYN: its client may use a port again that the flow's ends have done with.
 */
static __always_inline int is_bound(const struct packet *p, const struct flow *flow)
{
	return flow->flags & FLOW_REPLY || (p->tuple.proto != IPPROTO_UDP && !is_syn(p));
}

/*
 * An ICMP error about a flow's packet, or a fragment without ports: it goes with the flow, and
 * begins none. 0: it belongs to no flow, and the verdict is not made.
 */
static __noinline int accompany(void *ctx, const struct packet *p, struct verdict *v)
{
	const struct flow *flow = flow_of(p);

	if (!flow)
		return 0;
	follow(ctx, p, flow, v);
	return 1;
}

#endif
