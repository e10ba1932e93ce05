/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a packet is foreign beyond doubt. On most nodes nearly all are: sockets were translated
 * when they connected, so that what they send is a stranger's at up to four hooks on its way. So
 * this is asked before anything else, of as little as will do: the shape that nearly all packets
 * have, a whole one of TCP or UDP behind bare IP and Ethernet headers, and two words of memory.
 * Whoever is doubtful goes the long way, parse() and recognise(), which would say the same.
 */
#ifndef MAGLANE_GLANCE_H
#define MAGLANE_GLANCE_H

#include "flow.h"
#include "origin.h"
#include "parse.h"
#include "snat.h"

/* Which of a packet's ends may make it ours. */
enum asked {
	ASK_SOURCE = 1,      /* what leaves: it may be an answer */
	ASK_DESTINATION = 2, /* what its sender has just sent: it may be to a frontend */
};

/*
 * Fills in `t` from the ports behind the IP headers, which say that `length` bytes follow: less
 * than 0, where they lie. 0: it does not have the shape.
 */
static __always_inline int glance_ports(void *ports, void *end, int length, struct tuple *t)
{
	int header = t->proto == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	const __be16 *port = ports;

	if (t->proto != IPPROTO_TCP && t->proto != IPPROTO_UDP)
		return 0;
	if (length < header || ports + header > end)
		return 0;
	t->sport = port[0];
	t->dport = port[1];
	return 1;
}

static __always_inline int glance_tuple(void *data, void *end, struct tuple *t)
{
	struct ethhdr *eth = data;
	struct iphdr *v4 = data + sizeof(*eth);
	struct ipv6hdr *v6 = data + sizeof(*eth);

	if ((void *)(v4 + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (*(__u8 *)v4 != 0x45 || v4->frag_off & bpf_htons(0x3fff))
			return 0;
		t->saddr = addr_from_v4(v4->saddr);
		t->daddr = addr_from_v4(v4->daddr);
		t->proto = v4->protocol;
		return glance_ports(v4 + 1, end, bpf_ntohs(v4->tot_len) - sizeof(*v4), t);
	}
	if (eth->h_proto != bpf_htons(ETH_P_IPV6) || (void *)(v6 + 1) > end || v6->version != 6)
		return 0;
	t->saddr = addr_from_v6(v6->saddr.in6_u.u6_addr32);
	t->daddr = addr_from_v6(v6->daddr.in6_u.u6_addr32);
	t->proto = v6->nexthdr;
	return glance_ports(v6 + 1, end, bpf_ntohs(v6->payload_len), t);
}

static __always_inline int is_foreign_destination(const struct tuple *t)
{
	const struct node *self;

	if (is_snat_port(t->dport) || t->dport == config.dsr_port || may_be_ours(&t->daddr, t->dport, t->proto))
		return 0;
	self = get_node();
	return self && !(self->flags & NODE_OWNS_BEYOND) && !in_service_cidrs(self, &t->daddr);
}

/* 1: the packet is foreign. 0: it may be ours. */
static __always_inline int glance(void *data, void *end, int asked)
{
	struct tuple t;

	if (!glance_tuple(data, end, &t))
		return 0;
	if (asked & ASK_SOURCE && may_have_served(&t.saddr, t.sport, t.proto))
		return 0;
	if (!(asked & ASK_DESTINATION))
		return 1;
	/* What this node itself sends from there is looked at by is_misled_reset(). */
	if (asked & ASK_SOURCE && is_snat_port(t.sport))
		return 0;
	return is_foreign_destination(&t);
}

#endif
