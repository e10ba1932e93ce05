/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the core decides, for a hook to carry out. */
#ifndef MAGLANE_VERDICT_H
#define MAGLANE_VERDICT_H

#include <linux/bpf.h>
#include "pkt.h"

enum action {
	ACTION_PASS = 0, /* goes on as it is */
	ACTION_REWRITE,  /* becomes `to` and goes on */
	ACTION_SEND,     /* becomes `to`, one hop further, and leaves along `route` */
	ACTION_WRAP,     /* leaves along `route` as it is, wrapped for the node `to`.saddr and its backend `to`.daddr */
	ACTION_INJECT,   /* becomes `to` and comes in anew, by the device of `route` */
	ACTION_REJECT,   /* goes back to its sender as the ICMP error that `why` means */
	ACTION_ECHO,     /* an echo request that goes back as its answer */
	ACTION_DROP,
};

struct verdict {
	enum reason why;
	enum action action;
	__u8 flow; /* enum flow_flag that a new flow is entered with */
	__u8 is_known_way; /* `route` has the link-layer addresses: no neighbour is to be asked */
	struct tuple to;
	struct bpf_fib_lookup route;
};

static __always_inline void decide(struct verdict *v, enum action action, enum reason why)
{
	v->action = action;
	v->why = why;
}

/* Why a packet without a tuple is not ours. */
static __always_inline enum reason reason_unparsed(enum parsed parsed)
{
	switch (parsed) {
	case PARSED_NOT_IP:
		return REASON_NOT_IP;
	case PARSED_LATER:
		return REASON_FRAGMENT;
	case PARSED_EXOTIC:
		return REASON_TO_TC;
	case PARSED_BROKEN:
		return REASON_UNPARSED;
	default:
		return REASON_FOREIGN;
	}
}

#endif
