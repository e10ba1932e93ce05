// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The packet path at XDP: before the kernel makes anything of a frame. */
#include <linux/bpf.h>
#include "core.h"
#include "count.h"
#include "ctx_xdp.h"
#include "glance.h"
#include "wrap_xdp.h"

/* Carries a verdict out, as an XDP action. What the kernel refuses becomes a drop. */
static __noinline int xdp_carry_out(struct xdp_md *ctx, const struct packet *p, struct verdict *v)
{
	int send = v->action == ACTION_SEND;

	switch (v->action) {
	case ACTION_PASS:
		return XDP_PASS;
	case ACTION_REJECT: /* tc can make an ICMP packet out of this one */
		v->why = REASON_TO_TC;
		return XDP_PASS;
	case ACTION_REWRITE:
	case ACTION_SEND:
		if (xdp_rewrite(ctx, p, &v->to, send))
			return send ? xdp_send(ctx, &v->route) : XDP_PASS;
		v->why = REASON_DROP_WRITE;
		return XDP_DROP;
	case ACTION_WRAP:
		if (xdp_wrap(ctx, p, &v->to))
			return xdp_send(ctx, &v->route);
		v->why = REASON_TO_TC; /* its flow is entered, and tc finds it */
		return XDP_PASS;
	default:
		return XDP_DROP;
	}
}

/* See glance(). Global, so that its stack is its own. */
__noinline int xdp_glance(struct xdp_md *ctx)
{
	return glance((void *)(long)ctx->data, (void *)(long)ctx->data_end, ASK_DESTINATION);
}

static __always_inline int xdp_settle(struct xdp_md *ctx, __u64 bytes)
{
	struct packet packet = {};
	struct verdict verdict = {};
	enum parsed parsed = xdp_read(ctx, &packet);
	enum opened opened = OPENED_NOT;
	int action;

	if (parsed == PARSED_TUPLE && may_be_wrapped(&packet)) {
		opened = xdp_unwrap(ctx, &packet, &verdict.to);
		if (opened == OPENED) {
			forget_packet(&packet);
			parsed = xdp_read(ctx, &packet);
		}
	}
	if (opened == OPENED_LOST)
		decide(&verdict, ACTION_DROP, REASON_DROP_WRITE);
	else if (opened && parsed == PARSED_TUPLE)
		take_in(&packet, &verdict);
	else if (opened)
		decide(&verdict, ACTION_DROP, REASON_DROP_DSR);
	else if (parsed == PARSED_TUPLE)
		serve(ctx, &packet, &verdict);
	else
		decide(&verdict, ACTION_PASS, reason_unparsed(parsed));
	action = xdp_carry_out(ctx, &packet, &verdict);
	count(verdict.why, bytes);
	return action;
}

SEC("xdp.frags")
int mg_xdp_ingress(struct xdp_md *ctx)
{
	__u64 bytes = bpf_xdp_get_buff_len(ctx);

	if (!xdp_glance(ctx))
		return xdp_settle(ctx, bytes);
	count(REASON_FOREIGN, bytes);
	return XDP_PASS;
}
