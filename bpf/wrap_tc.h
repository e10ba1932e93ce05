/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Wrapping and unwrapping at tc: an skb may be many segments in one, of which the kernel makes each a packet of its own. */
#ifndef MAGLANE_WRAP_TC_H
#define MAGLANE_WRAP_TC_H

#include "ctx_tc.h"
#include "wrap.h"

#define WRAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)

/*
 * Wraps a packet, which stays as it is, for the node to->saddr and the backend to->daddr there. Of many
 * segments in one, the kernel corrects lengths and checksum of each. Global, as what follows: proven
 * once, and with a stack of its own. 0: it could not be done.
 */
__noinline int skb_wrap(struct __sk_buff *skb, const struct packet *p, const struct tuple *to)
{
	const struct addr *own;
	union wrap wrap = {};
	__u32 inside, size;
	__be32 first;
	__u64 flags;

	if (!p || !to)
		return 0;
	own = own_address(p);
	/* Behind a short packet, frames may have padding. */
	inside = skb->gso_size ? skb->len - p->l3 : p->l3_len;
	if (!own || inside == 0 || bpf_skb_load_bytes(skb, p->l3, &first, sizeof(first)))
		return 0;
	size = fill_wrap(&wrap, p, to, own, inside, first);
	flags = WRAP_FLAGS | (p->v4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
	return !bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, flags) &&
	       !bpf_skb_store_bytes(skb, p->l3, &wrap, size, BPF_F_RECOMPUTE_CSUM);
}

/*
 * Takes the wrapping off a packet that one of the other nodes has sent to this one, and gives the backend in
 * `to`. `p` is not read anew. Returns enum opened.
 */
__noinline int skb_unwrap(struct __sk_buff *skb, const struct packet *p, struct tuple *to)
{
	__u32 size;

	if (!p || !to)
		return 0;
	size = read_wrap(skb, HOOK_TC, p, to);
	if (size == 0)
		return OPENED_NOT;
	return bpf_skb_adjust_room(skb, -(__s32)size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? OPENED_LOST : OPENED;
}

#endif
