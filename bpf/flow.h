/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connection tracking. A flow has two halves, one entry for each direction; the key of
 * either is the reverse of what the other rewrites to, so each can be rebuilt from the other.
 */
#ifndef MAGLANE_FLOW_H
#define MAGLANE_FLOW_H

#include <linux/bpf.h>
#include "affinity.h" /* coarse_seconds() */
#include "maps.h"
#include "pkt.h"

static __always_inline struct tuple reversed(const struct tuple *t)
{
	return (struct tuple){
		.saddr = t->daddr, .daddr = t->saddr,
		.sport = t->dport, .dport = t->sport,
		.proto = t->proto,
	};
}

static __always_inline int tuple_equal(const struct tuple *a, const struct tuple *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;
	__u32 difference = 0;

	/* Without branches: each one would double what the verifier has to walk through. */
	for (unsigned int i = 0; i < sizeof(*a) / sizeof(*x); i++)
		difference |= x[i] ^ y[i];
	return difference == 0;
}

static __always_inline struct flow *find_flow(const struct tuple *key)
{
	return bpf_map_lookup_elem(&flows, key);
}

/* What an end may be to us; see struct ends. */
enum end_is {
	END_FRONTEND = 1,
	END_DIALLED = 2, /* as the destination of a client's packet */
	END_SERVED = 4,  /* as the source of an answer */
};

/* What is known of the ends with a hash. */
static __always_inline struct ends *find_ends(__u32 hash)
{
	__u32 index = hash >> (32 - ENDS_BITS + 6);

	return bpf_map_lookup_elem(&ends, &index);
}

static __always_inline __u64 ends_bit(__u32 hash)
{
	return 1ULL << (hash >> (32 - ENDS_BITS) & 63);
}

/* 0: that end is none of `asked`, a constant. */
static __always_inline int end_may_be(int asked, const struct addr *a, __be16 port, __u8 proto)
{
	__u32 hash = hash_end_point(a, port, proto);
	const struct ends *known = find_ends(hash);
	__u64 bits = 0;

	if (!known)
		return 0;
	if (asked & END_FRONTEND)
		bits |= known->frontends;
	if (asked & END_DIALLED)
		bits |= known->dialled;
	if (asked & END_SERVED)
		bits |= known->served;
	return (bits & ends_bit(hash)) != 0;
}

/* From now on it may be END_DIALLED, or END_SERVED. */
static __always_inline void note_end(enum end_is is, const struct addr *a, __be16 port, __u8 proto)
{
	__u32 hash = hash_end_point(a, port, proto);
	struct ends *known = find_ends(hash);
	__u64 *word;

	if (!known)
		return;
	word = is == END_DIALLED ? &known->dialled : &known->served;
	/* Mostly the bit is set: a locked write would take the line from the other CPUs. */
	if (!(*word & ends_bit(hash)))
		__sync_fetch_and_or(word, ends_bit(hash));
}

static __always_inline struct flow *other_half(const struct flow *flow)
{
	struct tuple key = reversed(&flow->to);

	return find_flow(&key);
}

/* A connection attempt: the first packet, or its repetition. */
static __always_inline int is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Some end has begun to close. `other` may be NULL. */
static __always_inline int flow_closing(const struct flow *flow, const struct flow *other)
{
	__u8 flags = flow->flags | (other ? other->flags : 0);

	return flags & (FLOW_FIN | FLOW_RST);
}

/* Nothing is to come any more: both ends have closed, as far as both are known, or one has reset. */
static __always_inline int flow_closed(const struct flow *flow, const struct flow *other)
{
	__u8 any = flow->flags, both = flow->flags;

	if (other) {
		any |= other->flags;
		both &= other->flags;
	}
	return any & FLOW_RST || both & FLOW_FIN;
}

static __always_inline __u8 flags_of(const struct packet *p, const struct flow *flow)
{
	__u8 flags = flow->flags;

	if (p->tcp_flags & TCP_FIN)
		flags |= FLOW_FIN;
	if (p->tcp_flags & TCP_RST)
		flags |= FLOW_RST;
	if (flags & FLOW_REPLY && p->kind != KIND_ERROR)
		flags |= FLOW_ASSURED;
	return flags;
}

/*
 * Notes that a flow's packet was seen. At most once a second it writes the time, in both
 * halves as both live or expire together, and brings back the other half if the LRU has
 * evicted it. 0: the other half has become another flow's, so this one is lost.
 * Not atomic: two CPUs may lose a flag to each other, which the next packet sets again, or
 * the flow ends a little later.
 */
static __noinline int keep_flow(const struct packet *p, struct flow *flow)
{
	__u32 now = coarse_seconds();
	__u8 flags = flags_of(p, flow);

	if (flow->flags & FLOW_DSR) {
		flow->seen = now;
	} else if (flow->seen != now) {
		struct tuple key = reversed(&flow->to);
		struct flow half = {
			.to = reversed(&p->tuple),
			.service = flow->service,
			.backend = flow->backend,
			.seen = now,
			.flags = (flags & (FLOW_FORWARD | FLOW_NODE)) | (~flags & FLOW_REPLY),
		};
		struct flow *other = find_flow(&key);

		if (!other)
			bpf_map_update_elem(&flows, &key, &half, BPF_NOEXIST);
		else if (tuple_equal(&other->to, &half.to))
			other->seen = now;
		else if (!(flags & FLOW_REPLY))
			return 0;
		flow->seen = now;
	}
	if (flow->flags != flags)
		flow->flags = flags;
	return 1;
}

#endif
