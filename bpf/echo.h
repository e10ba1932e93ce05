/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers to pings of a virtual IP (RFC 792, RFC 4443, 4.2): the request itself, turned round.
 * Identifier, sequence number and data stay as they are. One packet for one.
 */
#ifndef MAGLANE_ECHO_H
#define MAGLANE_ECHO_H

#include "flow.h"
#include "icmp.h"
#include "service.h"

#define ECHO_REQUEST4 8
#define ECHO_REPLY4 0
#define ECHO_REQUEST6 128
#define ECHO_REPLY6 129

/* An address that one host can be reached by, as far as its first byte tells. */
static __always_inline int is_unicast(const struct addr *a)
{
	__u8 first;

	if (!addr_is_v4(a))
		return (a->w[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000) &&
		       (a->w[0] | a->w[1] | a->w[2] | a->w[3]);
	first = bpf_ntohl(addr_v4(a)) >> 24;
	return first != 0 && first < 224;
}

/*
 * Whether a packet without ports is an echo request to an address with FRONTEND_PING. Not a
 * fragment of one: a ping larger than the MTU would have to be put together first.
 */
static __always_inline int is_ours_to_answer(const struct __sk_buff *skb, const struct packet *p)
{
	const struct frontend *whole;

	if (p->tuple.proto != (p->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) || p->fragment)
		return 0;
	if (p->icmp_type != (p->v4 ? ECHO_REQUEST4 : ECHO_REQUEST6))
		return 0;
	whole = find_frontend(&p->tuple.daddr, 0, 0);
	return whole && whole->flags & FRONTEND_PING && is_unicast(&p->tuple.saddr) &&
	       is_meant_for_us(skb, p);
}

/* Turns an echo request into its answer and sends it back. Returns a tc action. */
__noinline int skb_echo(struct __sk_buff *skb, const struct packet *p)
{
	__u8 type, hops;
	struct tuple back;
	long err;

	if (!p)
		return TC_ACT_SHOT;
	type = p->v4 ? ECHO_REPLY4 : ECHO_REPLY6;
	hops = p->ttl - ANSWER_TTL; /* from any TTL to that one, modulo 256 */
	back = reversed(&p->tuple);
	err = bpf_l4_csum_replace(skb, p->l4 + offsetof(struct icmp_message, checksum),
				  bpf_htons(p->icmp_type << 8), bpf_htons(type << 8), sizeof(__u16));
	err |= bpf_skb_store_bytes(skb, p->l4, &type, sizeof(type), 0);
	/* Addresses that change places add up to what they did. */
	err |= p->v4 ? skb_write_v4(skb, p, &back, 0, hops) : skb_write_v6(skb, p, &back, hops);
	return err ? TC_ACT_SHOT : skb_send_back(skb, p);
}

#endif
