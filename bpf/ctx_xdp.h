/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The hooks' contract, for XDP: read a packet, rewrite it, send it. ctx_tc.h is the other one.
 * XDP sees whole frames without offloads: bytes are changed in place.
 */
#ifndef MAGLANE_CTX_XDP_H
#define MAGLANE_CTX_XDP_H

#include "csum.h"
#include "parse.h"
#include "verdict.h"

/* Global like claim_port(): what follows is then verified once, not for each way to read. */
__noinline int xdp_read(struct xdp_md *ctx, struct packet *p)
{
	if (!p)
		return PARSED_BROKEN;
	p->hook = HOOK_XDP;
	p->ifindex = ctx->ingress_ifindex;
	return parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, p, HOOK_XDP);
}

static __always_inline void write_udp(struct udphdr *udp, const struct tuple *to, __u64 change)
{
	udp->source = to->sport;
	udp->dest = to->dport;
	if (udp->check == 0) /* none was made (RFC 768) */
		return;
	udp->check = csum_update(udp->check, change);
	if (udp->check == 0)
		udp->check = 0xffff;
}

/* Turns the packet into `to`, `hops` further. 0: it cannot be written to, and was not. */
static __always_inline int xdp_rewrite(struct xdp_md *ctx, const struct packet *p,
				       const struct tuple *to, __u8 hops)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l3 = data + (p->l3 & (OFFSETS - 1)), *l4 = data + (p->l4 & (OFFSETS - 1));
	__u64 addresses = csum_addresses(&p->tuple, to);
	__u64 change = addresses + csum_ports(&p->tuple, to);

	if (p->tuple.proto == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;

		if (l4 + sizeof(*tcp) > end)
			return 0;
		tcp->source = to->sport;
		tcp->dest = to->dport;
		tcp->check = csum_update(tcp->check, change);
	} else {
		if (l4 + sizeof(struct udphdr) > end)
			return 0;
		write_udp(l4, to, change);
	}
	if (p->v4) {
		struct iphdr *ip = l3;

		if (l3 + sizeof(*ip) > end)
			return 0;
		ip->saddr = addr_v4(&to->saddr);
		ip->daddr = addr_v4(&to->daddr);
		ip->check = csum_update(ip->check, addresses + csum_ttl(p->ttl, hops));
		ip->ttl -= hops;
	} else {
		struct ipv6hdr *ip = l3;

		if (l3 + sizeof(*ip) > end)
			return 0;
		__builtin_memcpy(&ip->saddr, &to->saddr, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &to->daddr, sizeof(ip->daddr));
		ip->hop_limit -= hops;
	}
	return 1;
}

/* Addresses the frame to the next hop. Returns an XDP action. */
static __always_inline int xdp_send(struct xdp_md *ctx, const struct bpf_fib_lookup *route)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(eth->h_dest, route->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, route->smac, ETH_ALEN);
	if (route->ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(route->ifindex, 0);
}

#endif
