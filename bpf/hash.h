/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hashes that choose backends. The seed is fixed: every node must hash a tuple to the same
 * Maglev slot, so that a flow which moves to another node keeps its backend.
 *
 * 64 bits a step, as a BPF program has no wider multiplication: fold the word in, multiply
 * by a large odd number, bring the well-mixed high half down. All 32 bits of a result are
 * good: reduce() uses the high ones, Maglev's modulo the low ones.
 */
#ifndef MAGLANE_HASH_H
#define MAGLANE_HASH_H

#include "abi.h"

#define HASH_SEED 0x6d61676c616e6531ULL /* "maglane1" */

static __always_inline __u64 hash_step(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio */
	return hash ^ (hash >> 32);
}

/* Two steps with nothing to add let each input bit reach each output bit. */
static __always_inline __u32 hash_end(__u64 hash)
{
	return hash_step(hash_step(hash, 0), 0);
}

static __always_inline __u64 hash_add_addr(__u64 hash, const struct addr *a)
{
	hash = hash_step(hash, (__u64)a->w[0] << 32 | a->w[1]);
	return hash_step(hash, (__u64)a->w[2] << 32 | a->w[3]);
}

/* Of a connection: the same for all of its packets in one direction. */
static __always_inline __u32 hash_tuple(const struct tuple *t)
{
	__u64 hash = hash_add_addr(HASH_SEED, &t->saddr);

	hash = hash_add_addr(hash, &t->daddr);
	return hash_end(hash_step(hash, (__u64)t->sport << 32 | (__u64)t->dport << 16 | t->proto));
}

/* Of a client, whatever it connects to: for affinity that survives a change of node. */
static __always_inline __u32 hash_addr(const struct addr *a)
{
	return hash_end(hash_add_addr(HASH_SEED, a));
}

/*
 * Of a server's end, for the bits of struct ends. Multilinear: no product waits for another. Its
 * upper bits are good; who makes ends collide on purpose slows down the packets to them, no more.
 */
static __always_inline __u32 hash_end_point(const struct addr *a, __be16 port, __u8 proto)
{
	/* The last word of struct frontend_key, as it lies in memory. */
	__u32 last = (__u32)proto << 16 | port;

	return a->w[0] * 0x9e3779b1 + a->w[1] * 0x85ebca77 + a->w[2] * 0xc2b2ae3d + a->w[3] * 0x27d4eb2f + last * 0x165667b1;
}

static __always_inline __u32 hash_u64(__u64 value)
{
	return hash_end(hash_step(HASH_SEED, value));
}

/* Maps a hash evenly to 0 .. n-1 without a division (Lemire, 2016). n = 0 gives 0. */
static __always_inline __u32 reduce(__u32 hash, __u32 n)
{
	return (__u64)hash * n >> 32;
}

#endif
