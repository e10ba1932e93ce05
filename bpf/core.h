/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a packet: the same at XDP and at tc. The core reads a parsed packet and the
 * maps, and fills in a verdict; it touches no byte of the packet. `ctx` is only handed through
 * to bpf_fib_lookup().
 */
#ifndef MAGLANE_CORE_H
#define MAGLANE_CORE_H

#include "fib.h"
#include "flow.h"
#include "host.h"
#include "origin.h"
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

	if (!is_snat_port(t->dport) && !may_be_dialled(&t->daddr, t->dport, t->proto))
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
	struct tuple from, to;
	int failed;

	if (!p || !v) /* so it asks for this, too */
		return REASON_DROP_INCONSISTENT;
	to = v->to;
	flow.to = reversed(&p->tuple);
	flow.flags = v->flow | FLOW_REPLY;
	/* Who sees the client as it is, sees its port; only when the client uses one port through
	 * two frontends to the same backend, one of the two gets another port. */
	failed = claim_port(&to, &flow, hash_tuple(&p->tuple), !(v->flow & FLOW_FORWARD), is_syn(p));
	if (failed)
		return failed;
	flow.to = to;
	v->to.sport = to.sport;
	flow.flags &= ~FLOW_REPLY;
	from = p->tuple; /* a key lies on the stack: kernels before 6.2 take it from nowhere else */
	if (bpf_map_update_elem(&flows, &from, &flow, BPF_ANY))
		return REASON_DROP_FLOWS_FULL;
	note_dialled(&from.daddr, from.dport, from.proto);
	note_served(&flow.to.daddr, flow.to.dport, flow.to.proto);
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
	note_dialled(&from.daddr, from.dport, from.proto);
	return 0;
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
