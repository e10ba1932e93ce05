/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Wrapping and unwrapping at tc: an skb may be many segments in one, of which the kernel makes each a packet of its own. */
#ifndef MAGLANE_WRAP_TC_H
#define MAGLANE_WRAP_TC_H

#include "ctx_tc.h"
#include "wrap.h"

#define WRAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)

/* Of many segments in one, the kernel corrects lengths and checksum of each. */
static __always_inline int skb_wrap_v4(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
				       const struct addr *own, __u16 inside)
{
	struct wrap4 wrap;
	__u8 class;

	if (bpf_skb_load_bytes(skb, p->l3 + offsetof(struct iphdr, tos), &class, sizeof(class)))
		return 0;
	fill_wrap_v4(&wrap, p, to, own, inside, class);
	return !bpf_skb_adjust_room(skb, sizeof(wrap), BPF_ADJ_ROOM_MAC, WRAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) &&
	       !bpf_skb_store_bytes(skb, p->l3, &wrap, sizeof(wrap), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int skb_wrap_v6(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
				       const struct addr *own, __u16 inside)
{
	struct wrap6 wrap;
	__be32 first;

	if (bpf_skb_load_bytes(skb, p->l3, &first, sizeof(first)))
		return 0;
	fill_wrap_v6(&wrap, p, to, own, inside, first);
	return !bpf_skb_adjust_room(skb, sizeof(wrap), BPF_ADJ_ROOM_MAC, WRAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) &&
	       !bpf_skb_store_bytes(skb, p->l3, &wrap, sizeof(wrap), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Wraps a packet, which stays as it is, for the node to->saddr and the backend to->daddr there. Global, as
 * what follows: proven once, and with a stack of its own. 0: it could not be done.
 */
__noinline int skb_wrap(struct __sk_buff *skb, const struct packet *p, const struct tuple *to)
{
	const struct addr *own;
	__u32 inside;

	if (!p || !to)
		return 0;
	own = own_address(p);
	/* Behind a short packet, frames may have padding. */
	inside = skb->gso_size ? skb->len - p->l3 : p->l3_len;
	if (!own || inside == 0)
		return 0;
	return p->v4 ? skb_wrap_v4(skb, p, to, own, inside) : skb_wrap_v6(skb, p, to, own, inside);
}

/*
 * Takes the wrapping off a packet that one of the other nodes has sent to this one, and gives the backend in
 * `to`. `p` is not read anew. Returns enum opened.
 */
__noinline int skb_unwrap(struct __sk_buff *skb, const struct packet *p, struct tuple *to)
{
	__u32 size, at, header;
	struct wrap_head head;
	__be32 v4 = 0;
	long err;

	if (!p || !to)
		return 0;
	header = p->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (p->l4 - p->l3 != header || !is_from_peer(p) || bpf_skb_load_bytes(skb, p->l4, &head, sizeof(head)) || !is_wrapped(p, &head))
		return 0;
	at = p->l4 + sizeof(head);
	if (p->v4) {
		err = bpf_skb_load_bytes(skb, at, &v4, sizeof(v4));
		to->daddr = addr_from_v4(v4);
		at += sizeof(v4);
		size = WRAP_V4;
	} else {
		err = bpf_skb_load_bytes(skb, at, &to->daddr, sizeof(to->daddr));
		at += sizeof(to->daddr);
		size = WRAP_V6;
	}
	if (err || bpf_skb_load_bytes(skb, at, &to->dport, sizeof(to->dport)))
		return 0;
	return bpf_skb_adjust_room(skb, -(__s32)size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? OPENED_LOST : OPENED;
}

#endif
