/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about translated packets (RFC 792, RFC 4443; RFC 5508, 4 for NATs). An error goes
 * the way of an answer to the packet that it quotes: so it is read as one, with the tuple of that
 * answer, and the core treats it like any packet of the flow. Rewriting it changes the quote too.
 */
#ifndef MAGLANE_ICMP_ERROR_H
#define MAGLANE_ICMP_ERROR_H

#include "ctx_tc.h"

/* Those that quote a packet and concern its sender; a redirect concerns the link that it is met on. */
static __always_inline int quotes_a_packet(const struct packet *p)
{
	if (p->fragment)
		return 0;
	if (p->v4)
		return p->tuple.proto == IPPROTO_ICMP &&
		       (p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12);
	return p->tuple.proto == IPPROTO_ICMPV6 && p->icmp_type >= 1 && p->icmp_type <= 4;
}

static __always_inline int read_quoted_v4(struct __sk_buff *skb, __u32 l3, struct tuple *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    ip.frag_off & bpf_htons(0x1fff))
		return 0;
	quoted->saddr = addr_from_v4(ip.saddr);
	quoted->daddr = addr_from_v4(ip.daddr);
	quoted->proto = ip.protocol;
	return l3 + ip.ihl * 4;
}

static __always_inline int read_quoted_v6(struct __sk_buff *skb, __u32 l3, struct tuple *quoted)
{
	__u32 at = l3 + sizeof(struct ipv6hdr);
	struct extension ext;
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	quoted->saddr = addr_from_v6(ip.saddr.in6_u.u6_addr32);
	quoted->daddr = addr_from_v6(ip.daddr.in6_u.u6_addr32);
	next = ip.nexthdr;
	for (int i = 0; i < EXTENSIONS_MAX && is_extension(next); i++) {
		if (bpf_skb_load_bytes(skb, at, &ext, sizeof(ext)))
			return 0;
		if (next == IPPROTO_FRAGMENT && ext.fragment & bpf_htons(0xfff8))
			return 0;
		at += sizeof(ext) + (next == IPPROTO_FRAGMENT ? 0 : ext.length * 8);
		next = ext.next;
	}
	quoted->proto = next;
	return at;
}

/*
 * Reads an ICMP error as an answer to the packet that it quotes. 0: it quotes none that can have
 * been translated, and `p` is as it was. 8 bytes behind the quoted IP headers are enough.
 */
__noinline int skb_read_error(struct __sk_buff *skb, struct packet *p)
{
	struct tuple quoted = {};
	__u32 at;

	if (!p || !quotes_a_packet(p))
		return 0;
	at = p->l4 + sizeof(struct icmp_message);
	at = p->v4 ? read_quoted_v4(skb, at, &quoted) : read_quoted_v6(skb, at, &quoted);
	if (!at || at + 8 > skb->len || (p->l3_len && at + 8 > p->l3 + p->l3_len))
		return 0;
	if (quoted.proto != IPPROTO_TCP && quoted.proto != IPPROTO_UDP && quoted.proto != IPPROTO_SCTP)
		return 0;
	/* It goes to whom the quoted packet came from, or it is no answer to it. */
	if (!addr_equal(&quoted.saddr, &p->tuple.daddr) || bpf_skb_load_bytes(skb, at, &quoted.sport, 4))
		return 0;
	p->tuple = reversed(&quoted);
	p->quoted_l4 = at;
	p->kind = KIND_ERROR;
	p->tcp_flags = 0;
	return 1;
}

/* Reads again as itself what was read as an answer: no flow knows that. */
static __always_inline void skb_unread_error(struct __sk_buff *skb, struct packet *p)
{
	p->kind = KIND_PLAIN;
	p->tuple.sport = 0;
	p->tuple.dport = 0;
	skb_read(skb, p);
}

/* Where the quoted transport checksum is; 0: it is not quoted, or there is none. */
static __always_inline __u32 quoted_check(struct __sk_buff *skb, const struct packet *p, __sum16 *check)
{
	__u32 at = p->quoted_l4;

	if (p->tuple.proto == IPPROTO_TCP)
		at += offsetof(struct tcphdr, check);
	else if (p->tuple.proto == IPPROTO_UDP)
		at += offsetof(struct udphdr, check);
	else
		return 0; /* SCTP's would take the whole packet's length, and nobody reads it */
	if (p->l3_len && at + sizeof(*check) > p->l3 + p->l3_len)
		return 0;
	if (bpf_skb_load_bytes(skb, at, check, sizeof(*check)))
		return 0;
	return p->tuple.proto == IPPROTO_UDP && !*check ? 0 : at;
}

/*
 * Rewrites the packet that an error quotes, whose answers become `to`. What that changes in the
 * error's own sum; negative: it could not be done. Global, as what follows: proven once, and
 * with a stack of its own.
 */
__noinline __s64 skb_rewrite_quote(struct __sk_buff *skb, const struct packet *p, const struct tuple *to)
{
	__u64 addresses, ports, change;
	__sum16 old = 0, new;
	__u32 at, l3;
	long err;

	if (!p || !to)
		return -1;
	addresses = csum_addresses(&p->tuple, to);
	ports = csum_ports(&p->tuple, to);
	change = addresses + ports;
	l3 = p->l4 + sizeof(struct icmp_message);

	at = quoted_check(skb, p, &old);
	if (at) {
		new = csum_update(old, change);
		if (p->tuple.proto == IPPROTO_UDP && !new)
			new = 0xffff;
		change = csum_replaced(change, old, new);
		if (bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0))
			return -1;
	}
	/* The other way round: the quoted packet is the one that `to` answers. */
	err = bpf_skb_store_bytes(skb, p->quoted_l4, &to->dport, sizeof(to->dport), 0);
	err |= bpf_skb_store_bytes(skb, p->quoted_l4 + 2, &to->sport, sizeof(to->sport), 0);
	if (!p->v4) {
		err |= bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, saddr), &to->daddr, sizeof(to->daddr), 0);
		err |= bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, daddr), &to->saddr, sizeof(to->saddr), 0);
		return err ? -1 : csum_fold32(change);
	}
	err |= bpf_skb_load_bytes(skb, l3 + offsetof(struct iphdr, check), &old, sizeof(old));
	new = csum_update(old, addresses);
	change = csum_replaced(change, old, new);
	err |= bpf_skb_store_bytes(skb, l3 + offsetof(struct iphdr, check), &new, sizeof(new), 0);
	err |= bpf_skb_store_bytes(skb, l3 + offsetof(struct iphdr, saddr), &to->daddr.w[3], sizeof(__be32), 0);
	err |= bpf_skb_store_bytes(skb, l3 + offsetof(struct iphdr, daddr), &to->saddr.w[3], sizeof(__be32), 0);
	return err ? -1 : csum_fold32(change);
}

/* The addresses that an error came with. */
static __always_inline long read_outer(struct __sk_buff *skb, const struct packet *p, struct tuple *outer)
{
	__be32 v4[2] = {};
	long err;

	if (!p->v4)
		return bpf_skb_load_bytes(skb, p->l3 + offsetof(struct ipv6hdr, saddr), outer, 2 * sizeof(struct addr));
	err = bpf_skb_load_bytes(skb, p->l3 + offsetof(struct iphdr, saddr), v4, sizeof(v4));
	outer->saddr = addr_from_v4(v4[0]);
	outer->daddr = addr_from_v4(v4[1]);
	return err;
}

/*
 * Sends an error to whom its flow's answers go, and from the address that they come from, unless
 * the flow shows the true one. A router's address stays then, for traceroute. `change`: what
 * skb_rewrite_quote() returned. 0: it could not be done, or not all of it.
 */
__noinline int skb_rewrite_outer(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
				 __u32 change, __u8 hops)
{
	struct tuple from = {}, outer;
	__u64 addresses;
	__u32 check;
	long err;

	if (!p || !to)
		return 0;
	check = p->l4 + offsetof(struct icmp_message, checksum);
	err = read_outer(skb, p, &from);
	outer = from;
	outer.daddr = to->daddr;
	if (!addr_equal(&p->tuple.saddr, &to->saddr))
		outer.saddr = to->saddr;
	addresses = csum_addresses(&from, &outer);
	err |= bpf_l4_csum_replace(skb, check, 0, change, 0);
	if (p->v4) {
		err |= skb_write_v4_end(skb, p, &outer, addresses, hops, offsetof(struct v4_end, ports));
	} else {
		err |= bpf_l4_csum_replace(skb, check, 0, csum_fold32(addresses), BPF_F_PSEUDO_HDR);
		err |= skb_write_v6(skb, p, &outer, hops);
	}
	return !err;
}

/* Turns an error into one about the packet that its receiver sent. 0: it could not be done, or not all of it. */
static __always_inline int skb_rewrite_error(struct __sk_buff *skb, const struct packet *p,
					     const struct tuple *to, __u8 hops)
{
	__s64 change = skb_rewrite_quote(skb, p, to);

	return change >= 0 && skb_rewrite_outer(skb, p, to, change, hops);
}

#endif
