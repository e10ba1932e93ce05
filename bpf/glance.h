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

static __always_inline int glance_v4(struct iphdr *ip, void *end, struct tuple *t)
{
	if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff))
		return 0;
	t->saddr = addr_from_v4(ip->saddr);
	t->daddr = addr_from_v4(ip->daddr);
	t->proto = ip->protocol;
	return glance_ports(ip + 1, end, bpf_ntohs(ip->tot_len) - sizeof(*ip), t);
}

static __always_inline int glance_v6(struct ipv6hdr *ip, void *end, struct tuple *t)
{
	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	t->saddr = addr_from_v6(ip->saddr.in6_u.u6_addr32);
	t->daddr = addr_from_v6(ip->daddr.in6_u.u6_addr32);
	t->proto = ip->nexthdr;
	return glance_ports(ip + 1, end, bpf_ntohs(ip->payload_len), t);
}

static __always_inline int is_foreign_destination(const struct tuple *t)
{
	const struct node *self;

	if (is_snat_port(t->dport) || t->dport == config.dsr_port ||
	    end_may_be(END_FRONTEND | END_DIALLED, &t->daddr, t->dport, t->proto))
		return 0;
	self = get_node();
	return self && !(self->flags & NODE_OWNS_BEYOND) && !in_service_cidrs(self, &t->daddr);
}

static __always_inline int is_foreign(const struct tuple *t, int asked)
{
	if (asked & ASK_SOURCE && end_may_be(END_SERVED, &t->saddr, t->sport, t->proto))
		return 0;
	if (!(asked & ASK_DESTINATION))
		return 1;
	/* What this node itself sends from there is looked at by is_misled_reset(). */
	if (asked & ASK_SOURCE && is_snat_port(t->sport))
		return 0;
	return is_foreign_destination(t);
}

/*
 * 1: the packet is foreign. 0: it may be ours. `asked` is a constant, and each family has its own copy of
 * the questions: three of four words of an IPv4 address are known then, and most of the sums are done.
 */
static __always_inline int glance(void *data, void *end, int asked)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct tuple t;

	if ((void *)(ip + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return glance_v4(ip, end, &t) && is_foreign(&t, asked);
	return eth->h_proto == bpf_htons(ETH_P_IPV6) && glance_v6((void *)ip, end, &t) && is_foreign(&t, asked);
}

#endif
