/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the bytes of a frame to a tuple, header by header; each step checks that its header is
 * there. Nothing here changes a packet.
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

struct frame {
	void *start;
	void *end;
};

/*
 * How far the walk has come: it is kept in the packet, not in a pointer, and read from there each
 * time. What memory holds the verifier does not follow, so that all ways to a place are one to it,
 * proven once; pointers that came by each of them, it would follow one by one.
 */
static __always_inline __u32 position(const struct packet *p)
{
	return *(const volatile __u16 *)&p->l4;
}

/* `size` bytes of the frame; NULL: they are not there. */
static __always_inline void *bytes_at(const struct frame *f, __u32 at, __u32 size)
{
	void *bytes = f->start + at;

	return at >= OFFSETS || bytes + size > f->end ? NULL : bytes;
}

/* The next `size` bytes; NULL: they are not there. */
static __always_inline void *take(const struct frame *f, struct packet *p, __u32 size)
{
	__u32 at = position(p);
	void *header = bytes_at(f, at, size);

	if (header)
		p->l4 = at + size;
	return header;
}

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

#define VLANS_MAX 2

/* The protocol behind the Ethernet header and its VLAN tags; 0: truncated. */
static __always_inline __be16 take_ethernet(const struct frame *f, struct packet *p)
{
	struct ethhdr *eth = take(f, p, sizeof(*eth));
	__be16 proto;

	if (!eth)
		return 0;
	proto = eth->h_proto;
	for (int i = 0; i < VLANS_MAX; i++) {
		struct vlan_tag *tag;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		tag = take(f, p, sizeof(*tag));
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

/* The header behind those of IP; NULL: it is not there, or not within what the IP header calls its packet. */
static __always_inline void *transport(const struct frame *f, const struct packet *p, __u32 size)
{
	__u32 at = position(p);

	if (p->l3_len != 0 && at + size > p->l3 + p->l3_len)
		return NULL;
	return bytes_at(f, at, size);
}

static __always_inline enum parsed read_portless(const struct frame *f, struct packet *p)
{
	const struct icmp_message *icmp;

	if (p->tuple.proto != (p->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		if (!transport(f, p, 0))
			return PARSED_BROKEN;
		/* An extension header too many, or none that IPv4 knows; the key of an address has 0, too. */
		return is_extension(p->tuple.proto) ? PARSED_OTHER : PARSED_PORTLESS;
	}
	icmp = transport(f, p, sizeof(*icmp));
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

static __always_inline enum parsed read_sctp(const struct frame *f, struct packet *p)
{
	const __be16 *ports = transport(f, p, SCTP_COMMON_HEADER);
	const __u8 *chunk;

	if (!ports)
		return PARSED_BROKEN;
	p->kind = KIND_SCTP;
	p->tuple.sport = ports[0];
	p->tuple.dport = ports[1];
	chunk = bytes_at(f, position(p) + SCTP_COMMON_HEADER, sizeof(*chunk));
	if (chunk)
		p->tcp_flags = sctp_flags(*chunk);
	return PARSED_TUPLE;
}

static __always_inline enum parsed read_transport(const struct frame *f, struct packet *p, enum hook hook)
{
	if (p->fragment == FRAGMENT_LATER)
		return PARSED_LATER;
	if (p->tuple.proto == IPPROTO_TCP) {
		const struct tcphdr *tcp = transport(f, p, sizeof(*tcp));

		if (!tcp)
			return PARSED_BROKEN;
		p->tuple.sport = tcp->source;
		p->tuple.dport = tcp->dest;
		p->tcp_flags = ((const __u8 *)tcp)[13];
		p->l4_len = tcp->doff * 4;
		return PARSED_TUPLE;
	}
	if (p->tuple.proto == IPPROTO_UDP) {
		const struct udphdr *udp = transport(f, p, sizeof(*udp));

		if (!udp)
			return PARSED_BROKEN;
		p->tuple.sport = udp->source;
		p->tuple.dport = udp->dest;
		p->l4_len = sizeof(*udp);
		return PARSED_TUPLE;
	}
	if (hook == HOOK_XDP)
		return PARSED_EXOTIC;
	return p->tuple.proto == IPPROTO_SCTP ? read_sctp(f, p) : read_portless(f, p);
}

/* Offset and "more fragments" of a packet that is not whole. */
static __always_inline void note_fragment(struct packet *p, int offset, __be32 id)
{
	p->fragment = offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	p->fragment_id = id;
}

static __always_inline enum parsed take_v4(const struct frame *f, struct packet *p, enum hook hook)
{
	struct iphdr *ip = take(f, p, sizeof(*ip));

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
	if (!take(f, p, ip->ihl * 4 - sizeof(*ip)))
		return PARSED_BROKEN;
	return PARSED_TUPLE;
}

static __always_inline enum parsed take_v6(const struct frame *f, struct packet *p, enum hook hook)
{
	struct ipv6hdr *ip = take(f, p, sizeof(*ip));
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
		struct extension *ext = take(f, p, sizeof(*ext));

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
			if (!take(f, p, ext->length * 8))
				return PARSED_BROKEN;
		}
		next = ext->next;
		if (p->fragment == FRAGMENT_LATER)
			break; /* what follows are no headers */
	}
	p->tuple.proto = next;
	return PARSED_TUPLE;
}

/*
 * Fills in `p`, whose ifindex and hook are the caller's: completely, if PARSED_TUPLE or PARSED_PORTLESS.
 * `hook` is a constant, so that XDP is spared the code that it has no use for.
 */
static __always_inline enum parsed parse(void *start, void *end, struct packet *p, enum hook hook)
{
	const struct frame f = { .start = start, .end = end };
	enum parsed parsed = PARSED_NOT_IP;
	__be16 proto;

	p->l4 = 0;
	proto = take_ethernet(&f, p);
	if (proto == 0)
		return PARSED_BROKEN;
	p->l3 = position(p);
	if (proto == bpf_htons(ETH_P_IP))
		parsed = take_v4(&f, p, hook);
	else if (proto == bpf_htons(ETH_P_IPV6))
		parsed = take_v6(&f, p, hook);
	return parsed == PARSED_TUPLE ? read_transport(&f, p, hook) : parsed;
}

#endif
