/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which member of a set a new connection gets.
 *
 * Sockets remember their backend, so that they may choose in any way. A packet's choice must come
 * out the same on each node and after its flow's entry is lost: it is a hash's, from the Maglev
 * table where there is one, whatever the algorithm.
 */
#ifndef MAGLANE_BALANCE_H
#define MAGLANE_BALANCE_H

#include "service.h"

enum asker {
	SOCKET_ASKS,
	PACKET_ASKS,
};

static __always_inline struct open_sockets *open_sockets_of(__u32 backend)
{
	return bpf_map_lookup_elem(&open_sockets, &backend);
}

/* The id that a hash names; with a table, equal hashes mostly keep it when the set changes. */
static __always_inline __u32 pick_by_hash(const struct backend_set *from, __u32 hash)
{
	if (from->table != 0)
		return ring_at(from->base + from->count + hash % from->table);
	return ring_at(from->base + reduce(hash, from->count));
}

/*
 * The less busy of two drawn by chance: as good as looking at all of them, at the cost of two
 * (Mitzenmacher, 2001), and sockets that dial at once do not all run to the same one.
 */
static __always_inline __u32 pick_less_busy(const struct backend_set *from, __u32 random)
{
	__u32 base = from->base, count = from->count;
	__u32 first = reduce(random, count);
	__u32 second = first + 1 + reduce(bpf_get_prandom_u32(), count - 1);
	__u32 one, other;
	struct open_sockets *open_one, *open_other;

	one = ring_at(base + first);
	if (count == 1)
		return one;
	other = ring_at(base + (second < count ? second : second - count));
	open_one = open_sockets_of(one);
	open_other = open_sockets_of(other);
	return open_one && open_other && open_other->counted < open_one->counted ? other : one;
}

/*
 * The id of a backend; 0 when the set is empty. `hash` is of the packet, or a random number;
 * `client` as struct affinity_key says.
 */
static __always_inline __u32 pick_backend(struct service *svc, enum set_index set, enum asker by,
					  __u32 hash, const struct addr *client)
{
	const struct backend_set *from = get_set(svc, set);
	__u32 count = from->count;

	if (count == 0)
		return 0;
	if (svc->algorithm == ALGORITHM_SOURCE_HASH)
		return pick_by_hash(from, hash_addr(client));
	if (by == SOCKET_ASKS && svc->algorithm == ALGORITHM_ROUND_ROBIN)
		return ring_at(from->base + __sync_fetch_and_add(&svc->turn, 1) % count);
	if (by == SOCKET_ASKS && svc->algorithm == ALGORITHM_LEAST_CONNECTIONS)
		return pick_less_busy(from, hash);
	return pick_by_hash(from, hash);
}

#endif
