/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a packet: the same at XDP and at tc. The core reads a parsed packet and the
 * maps, and fills in a verdict; it touches no byte of the packet. `ctx` is only handed through
 * to bpf_fib_lookup(). Packets of known flows are in known.h, first ones in begin.h.
 */
#ifndef MAGLANE_CORE_H
#define MAGLANE_CORE_H

#include "begin.h"
#include "known.h"

/*
 * What no frontend takes. An address that is ours as a whole is refused, so that it does not
 * travel between routers for ever, but never one that an interface here holds (somebody's SSH).
 * Others pass after one lookup: only what lies where such addresses are is looked up again.
 */
static __always_inline void refuse_or_pass(void *ctx, const struct packet *p, struct verdict *v)
{
	const struct node *self = get_node();
	const struct frontend *whole;
	int inside;

	decide(v, ACTION_PASS, REASON_FOREIGN);
	if (!self)
		return;
	inside = in_service_cidrs(self, &p->tuple.daddr);
	if (!inside && !(self->flags & NODE_OWNS_BEYOND))
		return;
	whole = find_frontend(&p->tuple.daddr, 0, 0);
	if (whole ? !(whole->flags & FRONTEND_OWNED) : !inside)
		return;
	if (may_be_held(ctx, p, &p->tuple, &v->route))
		return;
	if (whole)
		decide(v, ACTION_REJECT, REASON_REJECT_UNKNOWN_PORT);
	else
		decide(v, ACTION_DROP, REASON_DROP_UNALLOCATED);
}

/*
 * First step: packets of known flows, and those that are not ours. What it returns is the
 * frontend to begin a flow with; NULL: the verdict is made.
 */
static __noinline struct frontend *recognise(void *ctx, const struct packet *p, struct verdict *v)
{
	struct frontend *frontend = NULL;
	struct flow *flow = flow_of(p);

	if (!flow || !is_bound(p, flow) || !keep_flow(p, flow)) {
		frontend = find_frontend(&p->tuple.daddr, p->tuple.dport, p->tuple.proto);
		if (!frontend || frontend->flags & FRONTEND_HOST_ONLY) {
			refuse_or_pass(ctx, p, v);
			return NULL;
		}
		if (!flow || !still_serves(flow, frontend) || flow_closing(flow, other_half(flow)) ||
		    !keep_flow(p, flow))
			return frontend;
	}
	follow(ctx, p, flow, v);
	return flow->flags & FLOW_DSR && is_datagram_too_long(p, v) ? frontend : NULL;
}

/* Whether a packet that another node has sent on as it is belongs to a flow that is known here. 0: the verdict is not made. */
static __noinline int take_up(const struct packet *p, struct verdict *v)
{
	struct flow *flow = find_flow(&p->tuple);
	int same;

	if (!flow || flow->flags & (FLOW_REPLY | FLOW_FORWARD | FLOW_DSR))
		return 0;
	same = flow->to.dport == v->to.dport && addr_equal(&flow->to.daddr, &v->to.daddr) &&
	       !(is_syn(p) && flow_closing(flow, other_half(flow)));
	if ((!same && !is_bound(p, flow)) || !keep_flow(p, flow))
		return 0;
	v->to = flow->to;
	decide(v, ACTION_REWRITE, REASON_LOCAL);
	return 1;
}

/*
 * A packet that another node has sent on as it is, for the backend v->to.daddr of this one: that node's
 * choice, unless a connection has its backend here already. A flow that is not known here begins with
 * any packet of it: the node that sends it knows it, or has found its backend again.
 */
static __always_inline void take_in(const struct packet *p, struct verdict *v)
{
	int failed;

	if (take_up(p, v))
		return;
	v->to.saddr = p->tuple.saddr;
	v->to.sport = p->tuple.sport;
	v->to.proto = p->tuple.proto;
	failed = enter(p, v, 0, 0);
	if (failed)
		decide(v, ACTION_DROP, failed);
	else
		decide(v, ACTION_REWRITE, REASON_NEW_LOCAL);
}

/*
 * A packet that may be on its way to a frontend. Three steps, none within another: together
 * they would need more than the 512 bytes of stack that there are.
 */
static __always_inline void serve(void *ctx, const struct packet *p, struct verdict *v)
{
	const struct frontend *frontend = recognise(ctx, p, v);
	__u32 service, backend;
	int failed;

	if (!frontend)
		return;
	service = frontend->service;
	backend = choose(ctx, p, frontend, v);
	if (!backend)
		return;
	if (config.dsr_port && v->flow & FLOW_DSR)
		failed = enter_dsr(p, v, service, backend);
	else
		failed = enter(p, v, service, backend);
	if (failed)
		decide(v, ACTION_DROP, failed);
}

#endif
