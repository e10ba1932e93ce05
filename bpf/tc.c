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
#include "fragment.h"
#include "glance.h"
#include "held.h"
#include "icmp.h"
#include "icmp_error.h"
#include "sctp.h"
#include "wrap_tc.h"

/* Lets a packet go that has become v->to. Returns a tc action. */
static __always_inline int skb_leave(struct __sk_buff *skb, const struct verdict *v)
{
	if (v->action == ACTION_SEND)
		return skb_send(skb, v);
	return v->action == ACTION_INJECT ? skb_inject(skb, &v->route) : TC_ACT_UNSPEC;
}

static __always_inline int is_rewrite(const struct verdict *v)
{
	return v->action == ACTION_REWRITE || v->action == ACTION_SEND || v->action == ACTION_INJECT;
}

/* What becomes of most packets: they pass or are dropped, or are rewritten, and plain. Returns a tc action. */
static __noinline int skb_carry_out(struct __sk_buff *skb, const struct packet *p, const struct verdict *v)
{
	if (is_rewrite(v) && skb_rewrite(skb, p, &v->to, v->action == ACTION_SEND))
		return skb_leave(skb, v);
	return v->action == ACTION_PASS ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* Turns a later fragment into a part of what its first one has become. 0: it could not be done. */
__noinline int skb_rewrite_later(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, __u8 hops)
{
	if (!p || !to)
		return 0;
	if (p->v4)
		return !skb_write_v4(skb, p, to, csum_addresses(&p->tuple, to), hops);
	return !skb_write_v6(skb, p, to, hops);
}

static __always_inline int rewrite_exotic(struct __sk_buff *skb, const struct packet *p, const struct verdict *v)
{
	int hops = v->action == ACTION_SEND;

	switch (p->kind) {
	case KIND_SCTP:
		return skb_rewrite_sctp(skb, p, &v->to, hops);
	case KIND_ERROR:
		return skb_rewrite_error(skb, p, &v->to, hops);
	default:
		return skb_rewrite_later(skb, p, &v->to, hops);
	}
}

/* The rest: packets that are rewritten, but not plain, and those that are answered. Apart, for its need of stack. Returns a tc action. */
static __noinline int skb_carry_out_exotic(struct __sk_buff *skb, const struct packet *p, const struct verdict *v)
{
	if (v->action == ACTION_REJECT)
		return skb_reject(skb, p, v);
	if (v->action == ACTION_ECHO)
		return skb_echo(skb, p);
	if (v->action == ACTION_WRAP)
		return skb_wrap(skb, p, &v->to) ? skb_send(skb, v) : TC_ACT_SHOT;
	return rewrite_exotic(skb, p, v) ? skb_leave(skb, v) : TC_ACT_SHOT;
}

static __always_inline int is_exotic(const struct packet *p, const struct verdict *v)
{
	if (is_rewrite(v))
		return p->kind != KIND_PLAIN;
	return v->action == ACTION_REJECT || v->action == ACTION_ECHO || v->action == ACTION_WRAP;
}

/* Carries a verdict out and counts it. What the kernel refuses becomes a drop. Returns a tc action. */
static __always_inline int conclude(struct __sk_buff *skb, const struct packet *p, struct verdict *v)
{
	__u64 bytes = skb->len;
	int action;

	if (v->action == ACTION_REJECT && is_routers_error(v) && !may_send_error())
		v->action = ACTION_DROP;
	action = is_exotic(p, v) ? skb_carry_out_exotic(skb, p, v) : skb_carry_out(skb, p, v);
	if (action == TC_ACT_SHOT && v->action != ACTION_DROP)
		v->why = REASON_DROP_WRITE;
	count(v->why, bytes);
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

/* A packet that this node sends on or lets go on, changed or wrapped. */
static __always_inline int is_taken(const struct verdict *v)
{
	return is_rewrite(v) || v->action == ACTION_WRAP;
}

/* The first fragment that is translated says to the others where they go. */
static __always_inline void lead_on(const struct packet *p, const struct verdict *v)
{
	if (p->fragment == FRAGMENT_FIRST && is_taken(v))
		note_ports(p);
}

/*
 * The same for what comes in, where others may have come before it: they follow now. Of what is not
 * translated it is noted, too, where others would be kept otherwise.
 */
static __noinline void lead_in(struct __sk_buff *skb, const struct packet *p, struct verdict *v)
{
	lead_on(p, v);
	if (is_taken(v)) {
		if (!release_held(skb, p))
			decide(v, ACTION_DROP, REASON_DROP_WRITE);
	} else if (claim_on(skb, p) != CLAIM_NONE) {
		note_ports(p);
	}
}

/* A later fragment that comes in. 0: it is not ours, and the verdict is not made. */
static __noinline int settle_later(struct __sk_buff *skb, struct packet *p, struct verdict *v)
{
	enum claim claim;

	if (recall_ports(p))
		return accompany(skb, p, v);
	claim = claim_on(skb, p);
	if (claim == CLAIM_NONE || !hold(skb, p))
		return 0;
	/* Has the first one come meanwhile, on another CPU, it may have missed this one: a copy too many does no harm. */
	if (recall_ports(p))
		return accompany(skb, p, v);
	decide(v, claim == CLAIM_SOLE ? ACTION_DROP : ACTION_PASS, REASON_FRAGMENT_HELD);
	return 1;
}

/* See glance(). Global, so that their stack is their own. */
__noinline int skb_glance_in(struct __sk_buff *skb)
{
	return glance((void *)(long)skb->data, (void *)(long)skb->data_end, ASK_DESTINATION);
}

__noinline int skb_glance_out(struct __sk_buff *skb)
{
	return glance((void *)(long)skb->data, (void *)(long)skb->data_end, ASK_SOURCE);
}

__noinline int skb_glance_own(struct __sk_buff *skb)
{
	return glance((void *)(long)skb->data, (void *)(long)skb->data_end, ASK_SOURCE | ASK_DESTINATION);
}

static __always_inline int pass_by(struct __sk_buff *skb)
{
	count(REASON_FOREIGN, skb->len);
	return TC_ACT_UNSPEC;
}

static __always_inline int settle_in(struct __sk_buff *skb, enum sender sender)
{
	struct packet packet = { .sender = sender };
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);
	enum opened opened = OPENED_NOT;

	if (sender == SENDER_OUTSIDE && parsed == PARSED_TUPLE && may_be_wrapped(&packet)) {
		opened = skb_unwrap(skb, &packet, &verdict.to);
		if (opened == OPENED) {
			forget_packet(&packet);
			parsed = skb_read(skb, &packet);
		}
	}
	if (opened == OPENED_LOST)
		decide(&verdict, ACTION_DROP, REASON_DROP_WRITE);
	else if (parsed == PARSED_PORTLESS && settle_icmp(skb, &packet, &verdict, 1))
		;
	else if (parsed == PARSED_LATER && settle_later(skb, &packet, &verdict))
		;
	else if (opened && parsed == PARSED_TUPLE)
		take_in(&packet, &verdict);
	else if (opened)
		decide(&verdict, ACTION_DROP, REASON_DROP_DSR);
	else if (has_tuple(parsed))
		serve(skb, &packet, &verdict);
	else
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	if (parsed == PARSED_TUPLE && packet.fragment == FRAGMENT_FIRST)
		lead_in(skb, &packet, &verdict);
	return conclude(skb, &packet, &verdict);
}

/* From outside, or out of a tunnel. */
SEC("tc")
int mg_tc_ingress(struct __sk_buff *skb)
{
	return skb_glance_in(skb) ? pass_by(skb) : settle_in(skb, SENDER_OUTSIDE);
}

/* What a pod of this node sends. */
SEC("tc")
int mg_pod_ingress(struct __sk_buff *skb)
{
	return skb_glance_in(skb) ? pass_by(skb) : settle_in(skb, SENDER_POD);
}

static __always_inline int settle_out(struct __sk_buff *skb, int own)
{
	struct packet packet = { .sender = SENDER_NODE };
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);

	if (parsed == PARSED_LATER && recall_ports(&packet) &&
	    (answer(&packet, &verdict) || (own && accompany(skb, &packet, &verdict))))
		;
	else if (!has_tuple(parsed))
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
	lead_on(&packet, &verdict);
	return conclude(skb, &packet, &verdict);
}

/* By an uplink or a tunnel: answers, and what this node itself sends. */
SEC("tc")
int mg_tc_egress(struct __sk_buff *skb)
{
	int own = skb->ingress_ifindex == 0; /* it came in by no device */

	return (own ? skb_glance_own(skb) : skb_glance_out(skb)) ? pass_by(skb) : settle_out(skb, own);
}

static __always_inline int settle_to_pod(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct verdict verdict = {};
	enum parsed parsed = skb_read(skb, &packet);

	if (parsed == PARSED_PORTLESS)
		skb_read_error(skb, &packet);
	if (parsed == PARSED_LATER && recall_ports(&packet) && answer(&packet, &verdict))
		;
	else if (!has_tuple(parsed))
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	else if (!answer(&packet, &verdict))
		decide(&verdict, ACTION_PASS, REASON_FOREIGN);
	lead_on(&packet, &verdict);
	return conclude(skb, &packet, &verdict);
}

/* What is on its way to a pod of this node: answers. */
SEC("tc")
int mg_pod_egress(struct __sk_buff *skb)
{
	return skb_glance_out(skb) ? pass_by(skb) : settle_to_pod(skb);
}
