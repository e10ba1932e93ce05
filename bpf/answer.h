/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What leaves this node, or enters a pod of it: answers of those who saw the client as it is. */
#ifndef MAGLANE_ANSWER_H
#define MAGLANE_ANSWER_H

#include "flow.h"
#include "verdict.h"

/*
 * This node's own RST to an answer whose flow has been forgotten: no socket of it uses these
 * ports. It would end a connection that the client's next packet brings back, or has brought back
 * already. Such a RST has no ACK, since the answer had one (RFC 9293, 3.10.7.1): one that refuses a
 * SYN, or that a socket sends of its own, has, and goes out. So does that of a flow of this
 * node's, which comes by again once it has become one of these ports'.
 */
static __noinline int is_misled_reset(const struct packet *p)
{
	const struct flow *flow;
	struct tuple answer;

	if ((p->tcp_flags & (TCP_RST | TCP_ACK)) != TCP_RST || !is_snat_port(p->tuple.sport))
		return 0;
	answer = reversed(&p->tuple);
	flow = find_flow(&answer);
	return !flow || !(flow->flags & FLOW_NODE);
}

/*
 * The answers of those who saw the client as it is get their frontend's address back where they
 * leave: by an uplink, or into the pod that asked. 0: it is none, and the verdict is not made.
 */
static __noinline int answer(const struct packet *p, struct verdict *v)
{
	const struct tuple *t = &p->tuple;
	struct flow *flow;

	if (!end_may_be(END_SERVED, &t->saddr, t->sport, t->proto))
		return 0;
	flow = find_flow(t);
	if (!flow || (flow->flags & (FLOW_REPLY | FLOW_FORWARD)) != FLOW_REPLY)
		return 0;
	keep_flow(p, flow);
	v->to = flow->to;
	decide(v, ACTION_REWRITE, REASON_REPLY_LOCAL);
	return 1;
}

#endif
