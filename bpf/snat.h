/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Source ports. A flow owns the tuple of its backend's answers: whoever holds that entry
 * holds the port. Ports are probed from a hash of the client's tuple, so a flow that was
 * forgotten mostly comes back with the port it had, which its backend still knows.
 */
#ifndef MAGLANE_SNAT_H
#define MAGLANE_SNAT_H

#include <linux/errno.h>
#include "config.h"
#include "flow.h"

#define SNAT_TRIES 32

/*
 * How many ports more a new connection leaves out after one of a closed flow, so that it chooses from
 * four of them at most: where connections come and go by the thousand all ports are such, and to
 * look at every one costs more than the rest of the packet.
 */
#define SNAT_STRIDE 7

/* After how many idle seconds another flow may have a port. */
enum idle {
	IDLE_CLOSED = 60,    /* the backend's TIME_WAIT is over */
	IDLE_UNANSWERED = 60,
	IDLE_UDP = 180,
	IDLE_TCP = 86400,
};

/* Whether a port (network byte order) is one of those reserved for forwarding. */
static __always_inline int is_snat_port(__be16 port)
{
	__u16 p = bpf_ntohs(port);

	return p >= config.snat_min && p <= config.snat_max;
}

static __always_inline __be16 snat_port(__u32 n)
{
	__u32 ports = config.snat_max - config.snat_min + 1;

	return bpf_htons(config.snat_min + n % ports);
}

/* How a new flow may treat the entry that holds the port it would like. */
struct holder {
	int expired; /* may be replaced at once */
	/*
	 * Seconds since it closed, and one: it may be replaced at need, the oldest first. Its backend
	 * may still be in TIME_WAIT, and then takes the new connection at the second SYN, as it
	 * would if we had dropped the first; mostly it takes it at once. 0: it is in use.
	 */
	int age;
};

static __always_inline struct holder judge_holder(const struct flow *reply, __u8 proto)
{
	const struct flow *forward = other_half(reply);
	int idle = coarse_seconds() - reply->seen;
	int closed = flow_closed(reply, forward);
	int limit = proto == IPPROTO_UDP ? IDLE_UDP : IDLE_TCP;

	if (closed)
		limit = IDLE_CLOSED;
	else if (!(reply->flags & FLOW_ASSURED))
		limit = IDLE_UNANSWERED;
	return (struct holder){
		.expired = idle > limit,
		.age = closed ? idle + 1 : 0,
	};
}

/* The search for a port. */
struct probe {
	struct tuple key; /* of the backend's answers to the port that is tried */
	__be16 oldest;    /* of the ports of closed flows the one that is idle the longest, */
	__u16 pad;
	int oldest_age;   /* and its holder's age */
};

enum tried {
	TRIED_TAKEN,   /* it is another flow's */
	TRIED_CLOSED,  /* likewise, and that one has closed */
	TRIED_ENTERED, /* it was free, and is the flow's now */
	TRIED_YIELDS,  /* its holder may be replaced: it is this very flow, or has expired */
	TRIED_FULL,
};

/*
 * Tries one port. Global: the verifier proves it once, and not once for each port and for all that may have
 * been known of those before. What maps are given lies on its own stack, for kernels before 6.2.
 */
__noinline int try_port(struct probe *probe, const struct flow *reply)
{
	struct holder holder;
	struct flow *known;
	struct tuple key;
	struct flow half;
	int err;

	if (!probe || !reply)
		return TRIED_FULL;
	key = probe->key;
	known = find_flow(&key);
	if (!known) {
		half = *reply;
		err = bpf_map_update_elem(&flows, &key, &half, BPF_NOEXIST);
		if (err != -EEXIST)
			return err ? TRIED_FULL : TRIED_ENTERED;
		/* Another CPU was faster: with a packet of this very flow? */
		known = find_flow(&key);
		return known && tuple_equal(&known->to, &half.to) ? TRIED_ENTERED : TRIED_TAKEN;
	}
	if (tuple_equal(&known->to, &reply->to))
		return TRIED_YIELDS;
	holder = judge_holder(known, key.proto);
	if (holder.expired)
		return TRIED_YIELDS;
	if (holder.age > probe->oldest_age) {
		probe->oldest_age = holder.age;
		probe->oldest = key.dport;
	}
	return holder.age > 0 ? TRIED_CLOSED : TRIED_TAKEN;
}

/*
 * Enters the half `reply` under a source port that is free towards the backend, and puts that
 * port into `to`. `keep` tries the port that is in `to` first: the client's own. `is_new`: no packet
 * of the flow can have had a port before.
 * 0: done. Otherwise an enum reason.
 */
static __always_inline int claim_port(struct tuple *to, const struct flow *reply, __u32 hash,
				      int keep, int is_new)
{
	struct probe probe = { .key = reversed(to) };
	int tried = TRIED_TAKEN;

	for (int i = 0; i < SNAT_TRIES; i++) {
		if (i > 0 || !keep)
			probe.key.dport = snat_port(hash + i);
		tried = try_port(&probe, reply);
		if (tried > TRIED_CLOSED)
			break;
		if (is_new && tried == TRIED_CLOSED)
			i += SNAT_STRIDE;
	}
	if (tried == TRIED_FULL)
		return REASON_DROP_FLOWS_FULL;
	if (tried <= TRIED_CLOSED) {
		if (probe.oldest_age == 0)
			return REASON_DROP_SNAT_FULL;
		probe.key.dport = probe.oldest;
	}
	/* Two CPUs may both do this: the loser finds out within a second, see keep_flow(). */
	if (tried != TRIED_ENTERED && bpf_map_update_elem(&flows, &probe.key, reply, BPF_ANY))
		return REASON_DROP_FLOWS_FULL;
	to->sport = probe.key.dport;
	return 0;
}

#endif
