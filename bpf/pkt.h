/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the bytes of a frame to a tuple. A cursor walks the headers; each step checks that
 * its header is there. Nothing here changes a packet.
 */
#ifndef MAGLANE_PKT_H
#define MAGLANE_PKT_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "addr.h"

enum hook {
	HOOK_XDP = 1,
	HOOK_TC = 2,
};

/* Who sent a packet, as far as the place where it is met can tell. */
enum sender {
	SENDER_OUTSIDE, /* it comes in by an uplink or out of a tunnel; from a pod of another node, perhaps */
	SENDER_POD,     /* it comes out of a pod of this node */
	SENDER_NODE,    /* this node made it, and it leaves by an uplink */
};

/* What the core knows of a packet. It never sees its bytes. */
struct packet {
	struct tuple tuple;
	__u32 ifindex; /* the device where it was met */
	__u16 l3;      /* offset of the IP header in the frame */
	__u16 l4;      /* offset of what follows the IP headers, less than OFFSETS */
	__u32 l3_len;  /* as the IP header says; 0: larger than it can say */
	__u8 hook;     /* enum hook */
	__u8 v4;
	__u8 ttl;      /* or hop limit */
	union {
		__u8 tcp_flags;
		__u8 icmp_type;
	};
	__u8 tagged;   /* has a VLAN tag in the frame */
	__u8 sender;   /* enum sender */
};

/* enum flow_flag knows the meaning; these are the bits on the wire (RFC 9293, 3.1). */
enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* A power of two above any offset that parse() can give: the verifier wants the bound again. */
#define OFFSETS 0x4000

enum parsed {
	PARSED_TUPLE,    /* the packet has addresses and ports */
	PARSED_PORTLESS, /* addresses, but no ports that we know of: they are 0 */
	PARSED_NOT_IP,
	PARSED_OTHER,    /* IP, but nobody's to translate or to refuse */
	PARSED_FRAGMENT, /* a part of a datagram, the first one included */
	PARSED_BROKEN,   /* truncated, or more headers than we follow */
};

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
	if (p->tuple.proto == IPPROTO_HOPOPTS || p->tuple.proto == IPPROTO_DSTOPTS ||
	    p->tuple.proto == IPPROTO_ROUTING || p->tuple.proto == IPPROTO_FRAGMENT)
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

/* The ports, and that the header lies within what the IP header calls its packet. */
static __always_inline enum parsed take_ports(struct cursor *c, struct packet *p)
{
	enum parsed parsed = PARSED_TUPLE;

	p->l4 = c->at - c->start;

	if (p->tuple.proto == IPPROTO_TCP) {
		struct tcphdr *tcp = take(c, sizeof(*tcp));

		if (!tcp)
			return PARSED_BROKEN;
		p->tuple.sport = tcp->source;
		p->tuple.dport = tcp->dest;
		p->tcp_flags = ((__u8 *)tcp)[13];
	} else if (p->tuple.proto == IPPROTO_UDP) {
		struct udphdr *udp = take(c, sizeof(*udp));

		if (!udp)
			return PARSED_BROKEN;
		p->tuple.sport = udp->source;
		p->tuple.dport = udp->dest;
	} else {
		parsed = take_portless(c, p);
	}
	if (p->l3_len != 0 && c->at - c->start > p->l3 + p->l3_len)
		return PARSED_BROKEN;
	return parsed;
}

static __always_inline enum parsed take_v4(struct cursor *c, struct packet *p)
{
	struct iphdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return PARSED_BROKEN;
	if (ip->frag_off & bpf_htons(0x3fff)) /* offset, more fragments */
		return PARSED_FRAGMENT;
	p->v4 = 1;
	p->ttl = ip->ttl;
	p->l3_len = bpf_ntohs(ip->tot_len);
	p->tuple.saddr = addr_from_v4(ip->saddr);
	p->tuple.daddr = addr_from_v4(ip->daddr);
	p->tuple.proto = ip->protocol;
	c->at = ip;
	if (!take(c, ip->ihl * 4)) /* once more, with its options */
		return PARSED_BROKEN;
	return take_ports(c, p);
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
	__u32 pad;
};

static __always_inline enum parsed take_v6(struct cursor *c, struct packet *p)
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

	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension *ext;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT)
			break;
		ext = take(c, sizeof(*ext));
		if (!ext)
			return PARSED_BROKEN;
		if (next == IPPROTO_FRAGMENT) {
			if (ext->fragment & bpf_htons(0xfff9))
				return PARSED_FRAGMENT; /* else atomic: a whole packet (RFC 6946) */
		} else {
			/* Not at its destination yet: the address is another's. */
			if (next == IPPROTO_ROUTING && ext->routing.segments_left != 0)
				return PARSED_OTHER;
			if (!take(c, ext->length * 8))
				return PARSED_BROKEN;
		}
		next = ext->next;
	}
	p->tuple.proto = next;
	return take_ports(c, p);
}

/* Fills in all of `p` but ifindex and hook: completely, if PARSED_TUPLE or PARSED_PORTLESS. */
static __always_inline enum parsed parse(void *start, void *end, struct packet *p)
{
	struct cursor c = { .start = start, .at = start, .end = end };
	__be16 proto = take_ethernet(&c, p);

	p->l3 = c.at - c.start;
	if (proto == 0)
		return PARSED_BROKEN;
	if (proto == bpf_htons(ETH_P_IP))
		return take_v4(&c, p);
	if (proto == bpf_htons(ETH_P_IPV6))
		return take_v6(&c, p);
	return PARSED_NOT_IP;
}

#endif
