/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Internet checksums updated by what changed (RFC 1624), never summed anew. A change is kept
 * in 64 bits, so that carries are folded in once at the end. One's complement sums do not
 * mind the byte order of the machine: words are taken as they lie in memory.
 */
#ifndef MAGLANE_CSUM_H
#define MAGLANE_CSUM_H

#include "abi.h"

/* Adds to `change` that one word was replaced. 16-bit fields may be given as they are. */
static __always_inline __u64 csum_replaced(__u64 change, __u32 from, __u32 to)
{
	return change + (__u32)~from + to;
}

/* What replacing the addresses changes: in the pseudo header, and in an IPv4 header. The
 * first words of two v4-mapped addresses are equal and add up to nothing. */
static __always_inline __u64 csum_addresses(const struct tuple *from, const struct tuple *to)
{
	__u64 change = 0;

	for (int i = 0; i < 4; i++) {
		change = csum_replaced(change, from->saddr.w[i], to->saddr.w[i]);
		change = csum_replaced(change, from->daddr.w[i], to->daddr.w[i]);
	}
	return change;
}

static __always_inline __u64 csum_ports(const struct tuple *from, const struct tuple *to)
{
	return csum_replaced(csum_replaced(0, from->sport, to->sport), from->dport, to->dport);
}

/* What lowering the TTL by `hops` changes in an IPv4 header: it is the high byte of its word. */
static __always_inline __u64 csum_ttl(__u8 ttl, __u8 hops)
{
	return csum_replaced(0, bpf_htons(ttl << 8), bpf_htons((__u8)(ttl - hops) << 8));
}

/* As the 32-bit difference that the bpf_l3/l4_csum_replace helpers take. */
static __always_inline __u32 csum_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum + (sum >> 32);
}

static __always_inline __u16 csum_fold16(__u64 sum)
{
	__u32 half = csum_fold32(sum);

	half = (half & 0xffff) + (half >> 16);
	return half + (half >> 16);
}

static __always_inline __sum16 csum_update(__sum16 old, __u64 change)
{
	return ~csum_fold16(change + (__u16)~old);
}

#endif
