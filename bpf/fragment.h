/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments go where the first of their datagram went: it has the ports, and they are noted for the
 * others. Nothing is put together. For those that overtake the first: held.h.
 */
#ifndef MAGLANE_FRAGMENT_H
#define MAGLANE_FRAGMENT_H

#include "maps.h"
#include "pkt.h"

static __always_inline struct fragment_key datagram_of(const struct packet *p)
{
	return (struct fragment_key){
		.saddr = p->tuple.saddr,
		.daddr = p->tuple.daddr,
		.id = p->fragment_id,
		.proto = p->tuple.proto,
	};
}

/* Notes the ports of a first fragment that is translated: the others are to be as well. */
static __noinline void note_ports(const struct packet *p)
{
	struct fragment_key key = datagram_of(p);
	struct fragment_ports ports = { p->tuple.sport, p->tuple.dport };

	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
}

/* Gives a later fragment the tuple of its datagram. 0: nothing is known of that, or it is not ours. */
static __noinline int recall_ports(struct packet *p)
{
	struct fragment_key key = datagram_of(p);
	struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, &key);

	if (!ports)
		return 0;
	p->tuple.sport = ports->sport;
	p->tuple.dport = ports->dport;
	p->kind = KIND_LATER;
	return 1;
}

#endif
