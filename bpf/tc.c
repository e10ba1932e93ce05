// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packet path at tc: where XDP cannot be, where it cannot send, and on the way out. The
 * programs serve tcx and clsact alike: TC_ACT_UNSPEC lets other programs of the device run.
 */
#include <linux/bpf.h>
#include "answer.h"
#include "core.h"
#include "count.h"
#include "ctx_tc.h"
#include "echo.h"
#include "icmp.h"
#include "icmp_error.h"
#include "sctp.h"

/* Turns the packet into v->to, one hop further if it is sent. 0: it could not be done, or not all of it. */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *p, const struct verdict *v)
{
	int hops = v->action == ACTION_SEND;

	switch (p->kind) {
	case KIND_PLAIN:
		return skb_rewrite(skb, p, &v->to, hops);
	case KIND_SCTP:
		return skb_rewrite_sctp(skb, p, &v->to, hops);
	case KIND_ERROR:
		return skb_rewrite_error(skb, p, &v->to, hops);
	default:
		return 0;
	}
}

/* Carries a verdict out, as a tc action. What the kernel refuses becomes a drop. */
static __noinline int skb_carry_out(struct __sk_buff *skb, const struct packet *p,
				    struct verdict *v)
{
	int action = TC_ACT_SHOT;

	switch (v->action) {
	case ACTION_PASS:
		return TC_ACT_UNSPEC;
	case ACTION_REWRITE:
	case ACTION_SEND:
	case ACTION_INJECT:
		if (!rewrite(skb, p, v))
			break;
		if (v->action == ACTION_SEND)
			action = skb_send(skb, &v->route);
		else
			action = v->action == ACTION_INJECT ? skb_inject(skb, &v->route) : TC_ACT_UNSPEC;
		break;
	case ACTION_REJECT:
		if (is_routers_error(v) && !may_send_error())
			return TC_ACT_SHOT;
		action = skb_reject(skb, p, v);
		break;
	case ACTION_ECHO:
		action = skb_echo(skb, p);
		break;
	default:
		return TC_ACT_SHOT;
	}
	if (action == TC_ACT_SHOT)
		v->why = REASON_DROP_WRITE;
	return action;
}

static __always_inline int has_tuple(enum parsed parsed)
{
	return parsed == PARSED_TUPLE || parsed == PARSED_PORTLESS;
}

/*
 * Pings of virtual IPs, and errors about translated packets. `sent_here`: it comes from the sender
 * that `p` names, and is not merely on its way out. 0: it is neither, and the verdict is not made.
 */
static __noinline int settle_icmp(struct __sk_buff *skb, struct packet *p, struct verdict *v, int sent_here)
{
	if (is_ours_to_answer(skb, p)) {
		decide(v, ACTION_ECHO, REASON_ECHO);
		return 1;
	}
	if (!skb_read_error(skb, p))
		return 0;
	if (p->sender == SENDER_NODE && answer(p, v))
		return 1;
	if (sent_here && accompany(skb, p, v))
		return 1;
	skb_unread_error(skb, p);
	return 0;
}

/* What comes in by a device: from outside, or from a pod. */
static __always_inline int come_in(struct __sk_buff *skb, enum sender sender)
{
	__u64 bytes = skb->len;
	struct packet packet = { .sender = sender };
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	int action;

	if (parsed == PARSED_PORTLESS && settle_icmp(skb, &packet, &verdict, 1))
		;
	else if (has_tuple(parsed))
		serve(skb, &packet, &verdict);
	else
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	action = skb_carry_out(skb, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}

/* From outside, or out of a tunnel. */
SEC("tc")
int mg_tc_ingress(struct __sk_buff *skb)
{
	return come_in(skb, SENDER_OUTSIDE);
}

/* What a pod of this node sends. */
SEC("tc")
int mg_pod_ingress(struct __sk_buff *skb)
{
	return come_in(skb, SENDER_POD);
}

/* By an uplink or a tunnel: answers, and what this node itself sends. */
SEC("tc")
int mg_tc_egress(struct __sk_buff *skb)
{
	__u64 bytes = skb->len;
	struct packet packet = { .sender = SENDER_NODE };
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	int own = skb->ingress_ifindex == 0; /* it came in by no device */
	int action;

	if (!has_tuple(parsed))
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	else if (parsed == PARSED_PORTLESS && settle_icmp(skb, &packet, &verdict, own))
		;
	else if (answer(&packet, &verdict))
		;
	else if (!own)
		decide(&verdict, ACTION_PASS, REASON_FOREIGN);
	else if (is_misled_reset(&packet))
		decide(&verdict, ACTION_DROP, REASON_DROP_NO_FLOW);
	else
		serve(skb, &packet, &verdict);
	action = skb_carry_out(skb, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}

/* What is on its way to a pod of this node: answers. */
SEC("tc")
int mg_pod_egress(struct __sk_buff *skb)
{
	__u64 bytes = skb->len;
	struct packet packet = {};
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	int action;

	if (parsed == PARSED_PORTLESS)
		skb_read_error(skb, &packet);
	if (!has_tuple(parsed))
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	else if (!answer(&packet, &verdict))
		decide(&verdict, ACTION_PASS, REASON_FOREIGN);
	action = skb_carry_out(skb, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}
