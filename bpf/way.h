/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ways that packets have just gone. To ask the routing table and the neighbours is half of what
 * it takes to send an established flow's packet on; its answer holds for a second between the same two
 * addresses. Each CPU has its own, so that none reads what another is writing.
 */
#ifndef MAGLANE_WAY_H
#define MAGLANE_WAY_H

#include "hash.h"
#include "maps.h"
#include "verdict.h"

/* About seconds, and never 0: a division would cost as much as all the rest here. */
static __always_inline __u32 way_time(void)
{
	return (bpf_ktime_get_coarse_ns() >> 30) + 1;
}

/* Where the way of a tuple is kept: one of any other two addresses gives place. */
static __always_inline struct way *find_way_slot(const struct tuple *t)
{
	__u32 hash = hash_end_point(&t->saddr, 0, 0) * 31 + hash_end_point(&t->daddr, 0, 0);
	__u32 index = hash >> (32 - WAYS_BITS);

	return bpf_map_lookup_elem(&ways, &index);
}

/* Puts the way that v->to went a moment ago into v->route. 0: none did, or this packet is too long for it. */
static __always_inline int recall_way(const struct packet *p, struct verdict *v)
{
	const struct way *way = find_way_slot(&v->to);

	if (!way || way->time != way_time() || way->from != p->ifindex || !p->l3_len || p->l3_len > way->mtu)
		return 0;
	if (!addr_equal(&way->daddr, &v->to.daddr) || !addr_equal(&way->saddr, &v->to.saddr))
		return 0;
	if (p->hook == HOOK_XDP && (p->tagged || !way->xdp))
		return 0;
	v->route.ifindex = way->ifindex;
	__builtin_memcpy(v->route.smac, way->smac, sizeof(way->smac));
	__builtin_memcpy(v->route.dmac, way->dmac, sizeof(way->dmac));
	v->is_known_way = 1;
	return 1;
}

/* Keeps the way in v->route, which the routing table has just given for a packet of that length. */
static __always_inline void note_way(const struct packet *p, const struct verdict *v)
{
	struct way *way = find_way_slot(&v->to);

	if (!way || !p->l3_len)
		return;
	way->time = way_time();
	way->from = p->ifindex;
	way->saddr = v->to.saddr;
	way->daddr = v->to.daddr;
	way->ifindex = v->route.ifindex;
	way->mtu = v->route.mtu_result;
	way->xdp = p->hook == HOOK_XDP;
	__builtin_memcpy(way->smac, v->route.smac, sizeof(way->smac));
	__builtin_memcpy(way->dmac, v->route.dmac, sizeof(way->dmac));
}

#endif
