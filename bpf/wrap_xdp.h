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

/* As skb_wrap(). A frame with a tag does not come here. 0: it has no room in front, and is as it was. */
__noinline int xdp_wrap(struct xdp_md *ctx, const struct packet *p, const struct tuple *to)
{
	const struct addr *own;
	union wrap wrap = {};
	__be32 first;
	__u32 size;

	if (!p || !to)
		return 0;
	own = own_address(p);
	if (!own || p->l3_len == 0 || bpf_xdp_load_bytes(ctx, p->l3, &first, sizeof(first)))
		return 0;
	size = fill_wrap(&wrap, p, to, own, p->l3_len, first);
	return xdp_move_start(ctx, -(int)size) && !bpf_xdp_store_bytes(ctx, sizeof(struct ethhdr), &wrap, size);
}

/* Behind its wrapping of `size` bytes, a whole packet of TCP or UDP: XDP looks at nothing else. */
static __always_inline int is_plain_inside(struct xdp_md *ctx, const struct packet *p, __u32 size)
{
	__u32 inner = p->l3 + size;
	__be16 fragment = 0;
	__u8 proto = 0;

	if (p->v4 && (bpf_xdp_load_bytes(ctx, inner + offsetof(struct iphdr, frag_off), &fragment, sizeof(fragment)) ||
		      fragment & bpf_htons(0x3fff)))
		return 0;
	inner += p->v4 ? offsetof(struct iphdr, protocol) : offsetof(struct ipv6hdr, nexthdr);
	return !bpf_xdp_load_bytes(ctx, inner, &proto, sizeof(proto)) && (proto == IPPROTO_TCP || proto == IPPROTO_UDP);
}

/* As skb_unwrap(), but for what tc has to look at: that is left to it. */
__noinline int xdp_unwrap(struct xdp_md *ctx, const struct packet *p, struct tuple *to)
{
	__u32 size;

	if (!p || !to)
		return 0;
	size = read_wrap(ctx, HOOK_XDP, p, to);
	if (size == 0 || !is_plain_inside(ctx, p, size))
		return OPENED_NOT;
	return xdp_move_start(ctx, size) ? OPENED : OPENED_LOST;
}

#endif
