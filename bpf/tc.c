// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packet path at tc: where XDP cannot be, where it cannot send, and on the way out. The
 * programs serve tcx and clsact alike: TC_ACT_UNSPEC lets other programs of the device run.
 */
#include <linux/bpf.h>
#include "core.h"
#include "count.h"
#include "ctx_tc.h"
#include "icmp.h"

/* Carries a verdict out, as a tc action. What the kernel refuses becomes a drop. */
static __noinline int skb_carry_out(struct __sk_buff *skb, const struct packet *p,
				    struct verdict *v)
{
	int send = v->action == ACTION_SEND;
	int action = TC_ACT_SHOT;

	switch (v->action) {
	case ACTION_PASS:
		return TC_ACT_UNSPEC;
	case ACTION_REWRITE:
	case ACTION_SEND:
		if (skb_rewrite(skb, p, &v->to, send))
			action = send ? skb_send(skb, &v->route) : TC_ACT_UNSPEC;
		break;
	case ACTION_REJECT:
		action = skb_reject(skb, p);
		break;
	default:
		return TC_ACT_SHOT;
	}
	if (action == TC_ACT_SHOT)
		v->why = REASON_DROP_WRITE;
	return action;
}

SEC("tc")
int mg_tc_ingress(struct __sk_buff *skb)
{
	__u64 bytes = skb->len;
	struct packet packet = {};
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	int action;

	if (parsed == PARSED_TUPLE || parsed == PARSED_PORTLESS)
		ingress(skb, &packet, &verdict);
	else
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	action = skb_carry_out(skb, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}

SEC("tc")
int mg_tc_egress(struct __sk_buff *skb)
{
	__u64 bytes = skb->len;
	struct packet packet = {};
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	int action;

	if (parsed == PARSED_TUPLE || parsed == PARSED_PORTLESS)
		egress(&packet, &verdict);
	else
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	action = skb_carry_out(skb, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}

/* What a pod of this node sends. */
SEC("tc")
int mg_pod_ingress(struct __sk_buff *skb)
{
	count(REASON_FOREIGN, skb->len);
	return TC_ACT_UNSPEC;
}

/* What is on its way to a pod of this node. */
SEC("tc")
int mg_pod_egress(struct __sk_buff *skb)
{
	count(REASON_FOREIGN, skb->len);
	return TC_ACT_UNSPEC;
}
