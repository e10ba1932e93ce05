/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments that overtake the first of their datagram: a copy of each is kept until that one comes,
 * and then comes in once more behind it. What is not ours is never kept from its way: a
 * fragment itself stops here only if its address is nobody else's.
 */
#ifndef MAGLANE_HELD_H
#define MAGLANE_HELD_H

#include "ctx_tc.h"
#include "fragment.h"
#include "service.h"

/* What the destination of a fragment says of whose it is. */
enum claim {
	CLAIM_NONE, /* another's */
	CLAIM_SOME, /* this node's own address, with nodePorts and our source ports, or that of a frontend which others may use as well */
	CLAIM_SOLE, /* ours as a whole: nothing passes there unless it is translated */
};

/* SCTP's fragments are left alone, and others have no ports. */
static __noinline enum claim claim_on(struct __sk_buff *skb, const struct packet *p)
{
	const struct frontend *whole;
	struct bpf_fib_lookup fib;

	if (p->tuple.proto != IPPROTO_UDP && p->tuple.proto != IPPROTO_TCP)
		return CLAIM_NONE;
	whole = find_frontend(&p->tuple.daddr, 0, 0);
	if (may_be_held(skb, p, &p->tuple, &fib))
		return CLAIM_SOME;
	if (!whole)
		return CLAIM_NONE;
	return whole->flags & FRONTEND_OWNED ? CLAIM_SOLE : CLAIM_SOME;
}

/* Somewhere to put a fragment. */
static __always_inline struct held_fragment *held_room(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&held_copy, &only);
}

/* 1 .. HELD_BYTES, as it is: in a form that every verifier understands, and no compiler sees through. */
static __always_inline __u32 held_size(__u32 size)
{
	asm volatile("" : "+r"(size));
	return ((size - 1) & (HELD_BYTES - 1)) + 1;
}

/* Copies `size` bytes of the packet, from its IP header on. 0: there are not as many, or too many. */
static __always_inline int held_take(struct __sk_buff *skb, const struct packet *p, __u32 size,
				     struct held_fragment *copy)
{
	if (size == 0 || size > HELD_BYTES)
		return 0;
	copy->size = size;
	return !bpf_skb_load_bytes(skb, p->l3, copy->bytes, held_size(size));
}

/* Makes the packet the one of the copy, behind its own link layer. 0: it could not be done, or not all of it. */
static __always_inline int held_put(struct __sk_buff *skb, const struct packet *p,
				    const struct held_fragment *copy)
{
	__u32 size = held_size(copy->size);

	return !bpf_skb_change_tail(skb, p->l3 + size, 0) &&
	       !bpf_skb_store_bytes(skb, p->l3, copy->bytes, size, BPF_F_RECOMPUTE_CSUM);
}

/* To be overtaken takes a fragment milliseconds; what is older may be of a datagram with the same number. */
static __always_inline int is_fresh(const struct held_fragment *held)
{
	return (__s32)(coarse_seconds() - held->since) <= 1;
}

/* Keeps a copy of a later fragment. 0: it is too long, or as many are kept of this datagram as may be. */
__noinline int hold(struct __sk_buff *skb, const struct packet *p)
{
	struct held_fragment *copy = held_room();
	struct held_key key = {};

	if (!p || !copy || !held_take(skb, p, p->l3_len, copy))
		return 0;
	copy->since = coarse_seconds();
	key.datagram = datagram_of(p);
	for (__u32 slot = 0; slot < HELD_MAX; slot++) {
		const struct held_fragment *held;

		key.slot = slot;
		held = bpf_map_lookup_elem(&held_fragments, &key);
		if (held && is_fresh(held))
			continue;
		if (held)
			bpf_map_delete_elem(&held_fragments, &key);
		if (!bpf_map_update_elem(&held_fragments, &key, copy, BPF_NOEXIST))
			return 1;
	}
	return 0;
}

/*
 * Lets those that came before the first fragment come in again, by its device and as it came there:
 * the kernel takes them up when it is done with this one, which carries them and is itself again in
 * the end. 0: it is not.
 */
__noinline int release_held(struct __sk_buff *skb, const struct packet *p)
{
	struct held_fragment *first = held_room();
	struct held_key key = {};

	if (!p)
		return 0;
	key.datagram = datagram_of(p);
	if (!bpf_map_lookup_elem(&held_fragments, &key))
		return 1;
	if (!first || !held_take(skb, p, skb->len - p->l3, first))
		return 1;
	for (__u32 slot = 0; slot < HELD_MAX; slot++) {
		const struct held_fragment *held;

		key.slot = slot;
		held = bpf_map_lookup_elem(&held_fragments, &key);
		if (!held)
			break;
		if (is_fresh(held) && held_put(skb, p, held))
			bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
		bpf_map_delete_elem(&held_fragments, &key);
	}
	return held_put(skb, p, first);
}

#endif
