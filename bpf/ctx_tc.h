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

/* The end of an IPv4 header without options, and what follows. */
struct v4_end {
	__u8 ttl;
	__u8 proto;
	__sum16 check;
	__be32 saddr;
	__be32 daddr;
	__be16 ports[2];
};

/* Each helper that writes asks anew whether it may. So one does it all: `size` bytes of struct v4_end. */
static __always_inline long skb_write_v4_end(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
					     __u64 change, __u8 hops, __u32 size)
{
	__u32 at = p->l3 + offsetof(struct iphdr, ttl);
	struct v4_end end;

	if (bpf_skb_load_bytes(skb, at, &end, size))
		return -1;
	end.ttl -= hops;
	end.check = csum_update(end.check, change + csum_ttl(p->ttl, hops));
	end.saddr = addr_v4(&to->saddr);
	end.daddr = addr_v4(&to->daddr);
	end.ports[0] = to->sport;
	end.ports[1] = to->dport;
	return bpf_skb_store_bytes(skb, at, &end, size, 0);
}

/* The same without ports. Apart, for those who call it have little stack left. */
static __noinline long skb_write_v4(struct __sk_buff *skb, const struct packet *p,
					 const struct tuple *to, __u64 change, __u8 hops)
{
	return skb_write_v4_end(skb, p, to, change, hops, offsetof(struct v4_end, ports));
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
	if (p->v4 && p->l4 == p->l3 + sizeof(struct iphdr))
		return !(err | skb_write_v4_end(skb, p, to, change, hops, sizeof(struct v4_end)));
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

/* Sends the packet out along a known way. Returns a tc action. */
static __always_inline int skb_send_known(struct __sk_buff *skb, const struct bpf_fib_lookup *route)
{
	struct {
		__u8 dmac[ETH_ALEN];
		__u8 smac[ETH_ALEN];
	} link;

	__builtin_memcpy(link.dmac, route->dmac, ETH_ALEN);
	__builtin_memcpy(link.smac, route->smac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, &link, sizeof(link), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(route->ifindex, 0);
}

/*
 * Sends the packet out along the route of a verdict. Where its way is not known, the kernel fills in the
 * link layer, and asks for the neighbour if it must: now and then it has to be asked, or the kernel
 * would not find out that it is gone. Returns a tc action.
 */
static __always_inline int skb_send(struct __sk_buff *skb, const struct verdict *v)
{
	const struct bpf_fib_lookup *route = &v->route;
	struct bpf_redir_neigh next = { .nh_family = route->family };

	if (!skb_untag(skb))
		return TC_ACT_SHOT;
	if (v->is_known_way)
		return skb_send_known(skb, route);
	if (route->family == AF_INET)
		next.ipv4_nh = route->ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, route->ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(route->ifindex, &next, sizeof(next), 0);
}

#endif
