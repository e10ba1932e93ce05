/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Wrapping and unwrapping at XDP: the start of the frame moves, and the link layer's header with it. */
#ifndef MAGLANE_WRAP_XDP_H
#define MAGLANE_WRAP_XDP_H

#include "ctx_xdp.h"
#include "wrap.h"

/* Moves the start of a frame forward, below 0 back, and its Ethernet header along. 0: it could not be done. */
static __always_inline int xdp_move_start(struct xdp_md *ctx, int by)
{
	struct ethhdr *eth = (void *)(long)ctx->data, kept;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	kept = *eth;
	if (bpf_xdp_adjust_head(ctx, by))
		return 0;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	*eth = kept;
	return 1;
}

static __always_inline int xdp_wrap_v4(struct xdp_md *ctx, const struct packet *p, const struct tuple *to, const struct addr *own)
{
	struct iphdr *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct wrap4 wrap, *front;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return 0;
	fill_wrap_v4(&wrap, p, to, own, p->l3_len, ip->tos);
	if (!xdp_move_start(ctx, -(int)sizeof(wrap)))
		return 0;
	front = (void *)(long)ctx->data + sizeof(struct ethhdr);
	if ((void *)(front + 1) > (void *)(long)ctx->data_end)
		return 0;
	*front = wrap;
	return 1;
}

static __always_inline int xdp_wrap_v6(struct xdp_md *ctx, const struct packet *p, const struct tuple *to, const struct addr *own)
{
	struct ipv6hdr *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct wrap6 wrap, *front;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return 0;
	fill_wrap_v6(&wrap, p, to, own, p->l3_len, *(__be32 *)ip);
	if (!xdp_move_start(ctx, -(int)sizeof(wrap)))
		return 0;
	front = (void *)(long)ctx->data + sizeof(struct ethhdr);
	if ((void *)(front + 1) > (void *)(long)ctx->data_end)
		return 0;
	*front = wrap;
	return 1;
}

/* As skb_wrap(). A frame with a tag does not come here. 0: it has no room in front, and is as it was. */
__noinline int xdp_wrap(struct xdp_md *ctx, const struct packet *p, const struct tuple *to)
{
	const struct addr *own;

	if (!p || !to)
		return 0;
	own = own_address(p);
	if (!own || p->l3_len == 0)
		return 0;
	return p->v4 ? xdp_wrap_v4(ctx, p, to, own) : xdp_wrap_v6(ctx, p, to, own);
}

/* Behind the Ethernet header, a whole packet of TCP or UDP: XDP looks at nothing else. */
static __always_inline int is_plain_inside(const struct packet *p, const void *inner)
{
	const struct iphdr *v4 = inner;
	const struct ipv6hdr *v6 = inner;
	__u8 proto = p->v4 ? v4->protocol : v6->nexthdr;

	if (p->v4 && v4->frag_off & bpf_htons(0x3fff))
		return 0;
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

/* A wrapped packet from its UDP header on, and as much of what is inside as is_plain_inside() asks about. */
struct opened4 {
	struct wrap_head head;
	__be32 addr;
	__be16 port;
	__u16 pad;
	struct iphdr inner;
};

struct opened6 {
	struct wrap_head head;
	struct addr addr;
	__be16 port;
	__u16 pad;
	struct ipv6hdr inner;
};

static __always_inline int xdp_read_wrapped_v4(const struct packet *p, const void *data, const void *end, struct tuple *to)
{
	const struct opened4 *found = data + sizeof(struct ethhdr) + sizeof(struct iphdr);

	if ((const void *)(found + 1) > end || !is_wrapped(p, &found->head) || !is_plain_inside(p, &found->inner))
		return 0;
	to->daddr = addr_from_v4(found->addr);
	to->dport = found->port;
	return WRAP_V4;
}

static __always_inline int xdp_read_wrapped_v6(const struct packet *p, const void *data, const void *end, struct tuple *to)
{
	const struct opened6 *found = data + sizeof(struct ethhdr) + sizeof(struct ipv6hdr);

	if ((const void *)(found + 1) > end || !is_wrapped(p, &found->head) || !is_plain_inside(p, &found->inner))
		return 0;
	to->daddr = found->addr;
	to->dport = found->port;
	return WRAP_V6;
}

/* As skb_unwrap(), but for what tc has to look at: that is left to it. */
__noinline int xdp_unwrap(struct xdp_md *ctx, const struct packet *p, struct tuple *to)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int size;

	if (!p || !to)
		return 0;
	if (p->l4 - p->l3 != (p->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) || !is_from_peer(p))
		return 0;
	size = p->v4 ? xdp_read_wrapped_v4(p, data, end, to) : xdp_read_wrapped_v6(p, data, end, to);
	if (size == 0)
		return 0;
	return xdp_move_start(ctx, size) ? OPENED : OPENED_LOST;
}

#endif
