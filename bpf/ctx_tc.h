/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The hooks' contract, for tc: read a packet, rewrite it, send it. ctx_xdp.h is the other one.
 * An skb may be many segments in one, be spread over pages or have a checksum yet to be
 * finished by hardware: only the kernel's helpers know how to change that.
 */
#ifndef MAGLANE_CTX_TC_H
#define MAGLANE_CTX_TC_H

#include <linux/pkt_cls.h>
#include "csum.h"
#include "fib.h"
#include "parse.h"
#include "verdict.h"

/* Room for all headers of any sensible packet; what has more stays unparsed. */
#define HEADERS 192

/* What is no longer than this fits everywhere (RFC 791, 3.1). */
#define FITS 576

/* Global, as it is called twice. */
__noinline int skb_parse(struct __sk_buff *skb, struct packet *p)
{
	enum parsed parsed;

	if (!p)
		return PARSED_BROKEN;
	parsed = parse((void *)(long)skb->data, (void *)(long)skb->data_end, p, HOOK_TC);

	/* SCTP's sum is of all fragments together: the first alone does not tell how to change it. */
	if (p->fragment && p->kind == KIND_SCTP)
		return PARSED_OTHER;
	/* Many segments in one: each of them is to fit where this leaves. SCTP's are of any size. */
	if (parsed == PARSED_TUPLE && (p->l3_len > FITS || !p->l3_len) && skb->gso_size)
		p->l3_len = p->l4_len ? p->l4 - p->l3 + p->l4_len + skb->gso_size : 0;
	return parsed;
}

/*
 * Global like claim_port(): what follows is then verified once, not for each way to read.
 *
 * Headers lie at hand in nearly every packet. To pull in more is dear: a packet that TCP keeps for
 * retransmission is copied for it. So that is for packets which cannot be read otherwise.
 */
__noinline int skb_read(struct __sk_buff *skb, struct packet *p)
{
	__u32 wanted = skb->len < HEADERS ? skb->len : HEADERS;
	int parsed;

	if (!p)
		return PARSED_BROKEN;
	p->hook = HOOK_TC;
	p->ifindex = skb->ifindex;
	parsed = skb_parse(skb, p);
	if (parsed != PARSED_BROKEN || skb->data_end - skb->data >= wanted || bpf_skb_pull_data(skb, wanted))
		return parsed;
	return skb_parse(skb, p);
}

static __always_inline long skb_write_v4(struct __sk_buff *skb, const struct packet *p,
					 const struct tuple *to, __u64 change, __u8 hops)
{
	__be32 addrs[2] = { addr_v4(&to->saddr), addr_v4(&to->daddr) };
	__u32 diff = csum_fold32(change + csum_ttl(p->ttl, hops));
	__u8 ttl = p->ttl - hops;
	long err;

	err = bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), 0, diff, 0);
	err |= bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, saddr), addrs,
				   sizeof(addrs), 0);
	if (hops)
		err |= bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, ttl), &ttl, 1, 0);
	return err;
}

/* An IPv6 header has no checksum that makes up for its changes within CHECKSUM_COMPLETE. */
static __always_inline long skb_write_v6(struct __sk_buff *skb, const struct packet *p,
					 const struct tuple *to, __u8 hops)
{
	struct addr addrs[2] = { to->saddr, to->daddr };
	__u8 ttl = p->ttl - hops;
	long err;

	err = bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, saddr), addrs,
				  sizeof(addrs), BPF_F_RECOMPUTE_CSUM);
	if (hops)
		err |= bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, hop_limit), &ttl,
					   1, BPF_F_RECOMPUTE_CSUM);
	return err;
}

/* Turns the packet into `to`, `hops` further. 0: it could not be done, or not all of it. */
static __always_inline int skb_rewrite(struct __sk_buff *skb, const struct packet *p,
				       const struct tuple *to, __u8 hops)
{
	int udp = p->tuple.proto == IPPROTO_UDP;
	/* A UDP checksum of 0 means that there is none: keep it, and make none. */
	__u64 zero = udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 check = p->l4 + (udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check));
	__u64 change = csum_addresses(&p->tuple, to);
	__be16 ports[2] = { to->sport, to->dport };
	long err;

	/* A partial checksum covers the pseudo header alone: addresses count, ports do not. */
	err = bpf_l4_csum_replace(skb, check, 0, csum_fold32(change), BPF_F_PSEUDO_HDR | zero);
	err |= bpf_l4_csum_replace(skb, check, 0, csum_fold32(csum_ports(&p->tuple, to)), zero);
	err |= bpf_skb_store_bytes(skb, p->l4, ports, sizeof(ports), 0);
	if (p->v4)
		err |= skb_write_v4(skb, p, to, change, hops);
	else
		err |= skb_write_v6(skb, p, to, hops);
	return !err;
}

/* A tag is kept beside the packet, mostly; a second one, or one of a virtual device, within. */
static __always_inline int skb_tagged(const struct __sk_buff *skb)
{
	return skb->vlan_present || skb->protocol == bpf_htons(ETH_P_8021Q) ||
	       skb->protocol == bpf_htons(ETH_P_8021AD);
}

/* Tags belong to the link that the packet came from. 0: they could not be taken off. */
static __always_inline int skb_untag(struct __sk_buff *skb)
{
	for (int i = 0; i < VLANS_MAX && skb_tagged(skb); i++) {
		if (bpf_skb_vlan_pop(skb))
			return 0;
	}
	return 1;
}

/* Lets the packet come in by the device of a route, which find_way_in() found. Returns a tc action. */
static __always_inline int skb_inject(struct __sk_buff *skb, const struct bpf_fib_lookup *route)
{
	if (!skb_untag(skb) || bpf_skb_store_bytes(skb, 0, route->smac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(route->ifindex, BPF_F_INGRESS);
}

/*
 * Sends the packet out along a route; the kernel fills in the link layer, and asks for the
 * neighbour if it must. Returns a tc action.
 */
static __always_inline int skb_send(struct __sk_buff *skb, const struct bpf_fib_lookup *route)
{
	struct bpf_redir_neigh next = { .nh_family = route->family };

	if (!skb_untag(skb))
		return TC_ACT_SHOT;
	if (route->family == AF_INET)
		next.ipv4_nh = route->ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, route->ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(route->ifindex, &next, sizeof(next), 0);
}

#endif
