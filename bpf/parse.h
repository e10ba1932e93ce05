/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the bytes of a frame to a tuple. A cursor walks the headers; each step checks that
 * its header is there. Nothing here changes a packet.
 */
#ifndef MAGLANE_PARSE_H
#define MAGLANE_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "pkt.h"

struct cursor {
	void *start;
	void *at;
	void *end;
};

/* The next `size` bytes; NULL: they are not there. */
static __always_inline void *take(struct cursor *c, __u32 size)
{
	void *header = c->at;

	if (header + size > c->end)
		return NULL;
	c->at = header + size;
	return header;
}

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

#define VLANS_MAX 2

/* The protocol behind the Ethernet header and its VLAN tags; 0: truncated. */
static __always_inline __be16 take_ethernet(struct cursor *c, struct packet *p)
{
	struct ethhdr *eth = take(c, sizeof(*eth));
	__be16 proto;

	if (!eth)
		return 0;
	proto = eth->h_proto;
	for (int i = 0; i < VLANS_MAX; i++) {
		struct vlan_tag *tag;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		tag = take(c, sizeof(*tag));
		if (!tag)
			return 0;
		p->tagged = 1;
		proto = tag->proto;
	}
	return proto;
}

/* As many extension headers as RFC 8200, 4.1 recommends that a packet has at most. */
#define EXTENSIONS_MAX 6

/* The start of every extension header, and what of two of them decides (RFC 8200, 4.4, 4.5). */
struct extension {
	__u8 next;
	__u8 length; /* in 8 bytes, less one */
	union {
		__be16 fragment; /* offset and "more", between reserved bits */
		struct {
			__u8 type;
			__u8 segments_left;
		} routing;
	};
	__be32 id; /* of the datagram that a fragment is part of */
};

static __always_inline int is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_DSTOPTS || proto == IPPROTO_ROUTING ||
	       proto == IPPROTO_FRAGMENT;
}

/* The start of an ICMP and of an ICMPv6 message; what follows depends on the type. */
struct icmp_message {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

/* Router and neighbour discovery (RFC 4861): the link's own business. */
#define ND_FIRST 133
#define ND_LAST 137

static __always_inline enum parsed take_portless(struct cursor *c, struct packet *p)
{
	struct icmp_message *icmp;

	/* An extension header too many, or none that IPv4 knows; the key of an address has 0, too. */
	if (is_extension(p->tuple.proto))
		return PARSED_OTHER;
	if (p->tuple.proto != (p->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return PARSED_PORTLESS;
	icmp = take(c, sizeof(*icmp));
	if (!icmp)
		return PARSED_BROKEN;
	p->icmp_type = icmp->type;
	if (!p->v4 && icmp->type >= ND_FIRST && icmp->type <= ND_LAST)
		return PARSED_OTHER;
	return PARSED_PORTLESS;
}

#define SCTP_COMMON_HEADER 12

enum sctp_chunk {
	SCTP_INIT = 1,
	SCTP_INIT_ACK = 2,
	SCTP_ABORT = 6,
	SCTP_SHUTDOWN_COMPLETE = 14,
};

/*
 * What an SCTP packet does to its association, in TCP's words: INIT begins it, ABORT and
 * SHUTDOWN COMPLETE end it (RFC 9260, 3.3). They come alone, but for an ABORT that may have
 * others before it; an association that ends so is forgotten later.
 */
static __always_inline __u8 sctp_flags(__u8 chunk)
{
	switch (chunk) {
	case SCTP_INIT:
		return TCP_SYN;
	case SCTP_INIT_ACK:
		return TCP_SYN | TCP_ACK;
	case SCTP_ABORT:
	case SCTP_SHUTDOWN_COMPLETE:
		return TCP_RST;
	default:
		return 0;
	}
}

static __always_inline enum parsed take_sctp(struct cursor *c, struct packet *p)
{
	__be16 *ports = take(c, SCTP_COMMON_HEADER);
	__u8 *chunk;

	if (!ports)
		return PARSED_BROKEN;
	p->kind = KIND_SCTP;
	p->tuple.sport = ports[0];
	p->tuple.dport = ports[1];
	chunk = c->at;
	if ((void *)(chunk + 1) <= c->end)
		p->tcp_flags = sctp_flags(*chunk);
	return PARSED_TUPLE;
}

/* The ports, and that the header lies within what the IP header calls its packet. */
static __always_inline enum parsed take_ports(struct cursor *c, struct packet *p, enum hook hook)
{
	enum parsed parsed = PARSED_TUPLE;

	p->l4 = c->at - c->start;
	if (p->fragment == FRAGMENT_LATER)
		return PARSED_LATER;
	if (p->tuple.proto == IPPROTO_TCP) {
		struct tcphdr *tcp = take(c, sizeof(*tcp));

		if (!tcp)
			return PARSED_BROKEN;
		p->tuple.sport = tcp->source;
		p->tuple.dport = tcp->dest;
		p->tcp_flags = ((__u8 *)tcp)[13];
		p->l4_len = tcp->doff * 4;
	} else if (p->tuple.proto == IPPROTO_UDP) {
		struct udphdr *udp = take(c, sizeof(*udp));

		if (!udp)
			return PARSED_BROKEN;
		p->tuple.sport = udp->source;
		p->tuple.dport = udp->dest;
		p->l4_len = sizeof(*udp);
	} else if (hook == HOOK_XDP) {
		return PARSED_EXOTIC;
	} else if (p->tuple.proto == IPPROTO_SCTP) {
		parsed = take_sctp(c, p);
	} else {
		parsed = take_portless(c, p);
	}
	if (p->l3_len != 0 && c->at - c->start > p->l3 + p->l3_len)
		return PARSED_BROKEN;
	return parsed;
}

/* Offset and "more fragments" of a packet that is not whole. */
static __always_inline void note_fragment(struct packet *p, int offset, __be32 id)
{
	p->fragment = offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	p->fragment_id = id;
}

static __always_inline enum parsed take_v4(struct cursor *c, struct packet *p, enum hook hook)
{
	struct iphdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return PARSED_BROKEN;
	if (ip->frag_off & bpf_htons(0x3fff)) { /* offset, more fragments */
		if (hook == HOOK_XDP)
			return PARSED_EXOTIC;
		note_fragment(p, ip->frag_off & bpf_htons(0x1fff), ip->id);
	}
	p->v4 = 1;
	p->ttl = ip->ttl;
	p->l3_len = bpf_ntohs(ip->tot_len);
	p->tuple.saddr = addr_from_v4(ip->saddr);
	p->tuple.daddr = addr_from_v4(ip->daddr);
	p->tuple.proto = ip->protocol;
	c->at = ip;
	if (!take(c, ip->ihl * 4)) /* once more, with its options */
		return PARSED_BROKEN;
	return take_ports(c, p, hook);
}

static __always_inline enum parsed take_v6(struct cursor *c, struct packet *p, enum hook hook)
{
	struct ipv6hdr *ip = take(c, sizeof(*ip));
	__u8 next;

	if (!ip || ip->version != 6)
		return PARSED_BROKEN;
	p->ttl = ip->hop_limit;
	p->l3_len = bpf_ntohs(ip->payload_len);
	if (p->l3_len != 0)
		p->l3_len += sizeof(*ip);
	p->tuple.saddr = addr_from_v6(ip->saddr.in6_u.u6_addr32);
	p->tuple.daddr = addr_from_v6(ip->daddr.in6_u.u6_addr32);
	next = ip->nexthdr;

	for (int i = 0; i < EXTENSIONS_MAX && is_extension(next); i++) {
		struct extension *ext = take(c, sizeof(*ext));

		if (!ext)
			return PARSED_BROKEN;
		if (next == IPPROTO_FRAGMENT) {
			if (ext->fragment & bpf_htons(0xfff9)) { /* else atomic: a whole packet (RFC 6946) */
				if (hook == HOOK_XDP)
					return PARSED_EXOTIC;
				note_fragment(p, ext->fragment & bpf_htons(0xfff8), ext->id);
			}
		} else {
			/* Not at its destination yet: the address is another's. */
			if (next == IPPROTO_ROUTING && ext->routing.segments_left != 0)
				return PARSED_OTHER;
			if (!take(c, ext->length * 8))
				return PARSED_BROKEN;
		}
		next = ext->next;
		if (p->fragment == FRAGMENT_LATER)
			break; /* what follows are no headers */
	}
	p->tuple.proto = next;
	return take_ports(c, p, hook);
}

/*
 * Fills in `p`, whose ifindex and hook are the caller's: completely, if PARSED_TUPLE or PARSED_PORTLESS.
 * `hook` is a constant, so that XDP is spared the code that it has no use for.
 */
static __always_inline enum parsed parse(void *start, void *end, struct packet *p, enum hook hook)
{
	struct cursor c = { .start = start, .at = start, .end = end };
	__be16 proto = take_ethernet(&c, p);

	p->l3 = c.at - c.start;
	if (proto == 0)
		return PARSED_BROKEN;
	if (proto == bpf_htons(ETH_P_IP))
		return take_v4(&c, p, hook);
	if (proto == bpf_htons(ETH_P_IPV6))
		return take_v6(&c, p, hook);
	return PARSED_NOT_IP;
}

#endif
