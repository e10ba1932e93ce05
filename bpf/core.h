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
#include "service.h"
#include "snat.h"

/* A packet of a known flow that comes in. */
static __always_inline void follow(void *ctx, const struct packet *p, const struct flow *flow,
				   struct verdict *v)
{
	v->to = flow->to;
	if (!(flow->flags & FLOW_FORWARD))
		decide(v, ACTION_REWRITE, REASON_LOCAL);
	else if (find_route(ctx, p, v))
		decide(v, ACTION_SEND, flow->flags & FLOW_REPLY ? REASON_REPLY_REMOTE : REASON_REMOTE);
}

/* Whether the backend of a flow is still the frontend's to choose. */
static __always_inline int still_serves(const struct flow *flow, const struct frontend *frontend)
{
	const struct backend *backend = get_backend(flow->backend, frontend->service);

	return backend && backend->flags & BACKEND_SERVING &&
	       backend->port == flow->to.dport && addr_equal(&backend->addr, &flow->to.daddr);
}

/*
 * Whether a packet of a known flow begins a new one all the same. A connection is never taken
 * from its backend; but a datagram is free to go where it is served, and so is a SYN: its
 * client may use a port again that the flow's two ends have done with.
 */
static __always_inline int begins_anew(const struct packet *p, const struct flow *flow,
				       const struct frontend *frontend)
{
	if (p->tuple.proto == IPPROTO_TCP && !is_syn(p))
		return 0;
	return !still_serves(flow, frontend) || flow_closing(flow, other_half(flow));
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
	const __u8 remote_reply = FLOW_REPLY | FLOW_FORWARD;
	struct frontend *frontend;
	struct flow *flow;

	/* An answer to what was forwarded is told by its port. One that no flow knows goes on:
	 * the port may be somebody else's. */
	if (is_snat_port(p->tuple.dport)) {
		flow = find_flow(&p->tuple);
		if (flow && (flow->flags & remote_reply) == remote_reply) {
			keep_flow(p, flow);
			follow(ctx, p, flow, v);
			return NULL;
		}
	}
	frontend = find_frontend(&p->tuple.daddr, p->tuple.dport, p->tuple.proto);
	if (!frontend || frontend->flags & FRONTEND_HOST_ONLY) {
		decide(v, ACTION_PASS, REASON_FOREIGN);
		return NULL;
	}
	flow = find_flow(&p->tuple);
	if (!flow || begins_anew(p, flow, frontend) || !keep_flow(p, flow))
		return frontend;
	follow(ctx, p, flow, v);
	return NULL;
}

/*
 * Second step: a backend, and the way to it. Its id, with v->to complete but for the source
 * port; 0: the verdict is made.
 */
static __noinline __u32 choose(void *ctx, const struct packet *p, const struct frontend *frontend,
			       struct verdict *v)
{
	struct choice choice = {};
	enum outcome outcome = choose_for_frontend(frontend, FROM_OUTSIDE, hash_tuple(&p->tuple),
						   &p->tuple.saddr, &choice);

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
	if (choice.backend->flags & BACKEND_LOCAL) {
		decide(v, ACTION_REWRITE, REASON_NEW_LOCAL);
	} else {
		if (!route_from_here(ctx, p, v))
			return 0;
		decide(v, ACTION_SEND, REASON_NEW_REMOTE);
	}
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
	int failed, local;

	if (!p || !v) /* so it asks for this, too */
		return REASON_DROP_INCONSISTENT;
	local = v->action == ACTION_REWRITE;
	from = p->tuple;
	to = v->to;

	flow.to = reversed(&from);
	flow.flags = local ? FLOW_REPLY : FLOW_REPLY | FLOW_FORWARD;
	/* A local backend sees the client as it is; only when the client uses one port through
	 * two frontends to the same backend, one of the two gets another port. */
	failed = claim_port(&to, &flow, hash_tuple(&from), local);
	if (failed)
		return failed;
	flow.to = to;
	flow.flags &= ~FLOW_REPLY;
	if (bpf_map_update_elem(&flows, &from, &flow, BPF_ANY))
		return REASON_DROP_FLOWS_FULL;
	v->to.sport = to.sport;
	return 0;
}

/*
 * A packet that comes in from outside, or out of a tunnel. Three steps, none within another:
 * together they would need more than the 512 bytes of stack that there are.
 */
static __always_inline void ingress(void *ctx, const struct packet *p, struct verdict *v)
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
	failed = enter(p, v, service, backend);
	if (failed)
		decide(v, ACTION_DROP, failed);
}

/*
 * This node's own RST to an answer whose flow has been forgotten: no socket of it uses these
 * ports. It would end a connection that the client's next packet brings back. Such a RST has no
 * ACK, since the answer had one (RFC 9293, 3.10.7.1): one that refuses a SYN, or that a socket
 * sends of its own, has, and goes out.
 */
static __always_inline int is_misled_reset(const struct packet *p)
{
	struct tuple answer;

	if ((p->tcp_flags & (TCP_RST | TCP_ACK)) != TCP_RST || !is_snat_port(p->tuple.sport))
		return 0;
	answer = reversed(&p->tuple);
	return !find_flow(&answer);
}

/*
 * A packet that leaves by a device which faces outside: the answers of local backends get
 * their frontend's address back. What ingress sends on passes here too; it is no flow's key.
 */
static __noinline void egress(const struct packet *p, struct verdict *v)
{
	struct flow *flow = find_flow(&p->tuple);

	if (flow && (flow->flags & (FLOW_REPLY | FLOW_FORWARD)) == FLOW_REPLY) {
		keep_flow(p, flow);
		v->to = flow->to;
		decide(v, ACTION_REWRITE, REASON_REPLY_LOCAL);
	} else if (is_misled_reset(p)) {
		decide(v, ACTION_DROP, REASON_DROP_NO_FLOW);
	} else {
		decide(v, ACTION_PASS, REASON_FOREIGN);
	}
}

#endif
