/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that nodes send each other as they are, in a packet of their own: Geneve (RFC 8926)
 * with one option, that says which backend was chosen. See docs/decisions/dsr.md.
 */
#ifndef MAGLANE_WRAP_H
#define MAGLANE_WRAP_H

#include "config.h"
#include "ctx_tc.h"
#include "host.h"

/* UDP, Geneve, and the start of its option. */
struct wrap_head {
	struct udphdr udp;
	__u8 options; /* their length in 4 bytes, below a version of 0 */
	__u8 flags;
	__be16 inner; /* Ethernet's number for what is inside */
	__be32 network;
	__be16 class;
	__u8 type;
	__u8 length; /* of what follows, in 4 bytes */
};

#define GENEVE_CRITICAL 0x40    /* flags: who does not know an option is to drop the packet */
#define OPTION_CLASS 0xff6d     /* one of those for experiments (RFC 8926, 7) */
#define OPTION_BACKEND 0x80     /* type: the backend; critical */

struct wrap4 {
	struct iphdr ip;
	struct wrap_head head;
	__be32 addr;
	__be16 port;
	__u16 pad;
};

struct wrap6 {
	struct ipv6hdr ip;
	struct wrap_head head;
	struct addr addr;
	__be16 port;
	__u16 pad;
};

_Static_assert(sizeof(struct wrap4) == WRAP_V4, "wrap4");
_Static_assert(sizeof(struct wrap6) == WRAP_V6, "wrap6");

/* 4-byte words of the option behind its start. */
#define BACKEND_WORDS_V4 2
#define BACKEND_WORDS_V6 5

/*
 * UDP has no checksum: over IPv6, too, where tunnels may leave it out, as what is inside has its own
 * (RFC 6935). `inside`: length of the packet that is wrapped.
 */
static __always_inline struct wrap_head wrap_head(const struct packet *p, __u16 inside)
{
	__u8 words = p->v4 ? BACKEND_WORDS_V4 : BACKEND_WORDS_V6;
	__u16 headers = p->v4 ? WRAP_V4 - sizeof(struct iphdr) : WRAP_V6 - sizeof(struct ipv6hdr);

	return (struct wrap_head){
		.udp = {
			.source = wrap_source_port(&p->tuple),
			.dest = config.dsr_port,
			.len = bpf_htons(inside + headers),
		},
		.options = words + 1,
		.flags = GENEVE_CRITICAL,
		.inner = bpf_htons(p->v4 ? ETH_P_IP : ETH_P_IPV6),
		.class = bpf_htons(OPTION_CLASS),
		.type = OPTION_BACKEND,
		.length = words,
	};
}

#define WRAP_TTL 64
#define WRAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)

/*
 * Congestion is not signalled through the wrapping (RFC 6040, 4.1: compatibility mode), so of the
 * traffic class only the upper six bits are taken over. Of many segments in one, the kernel
 * corrects lengths and checksum of each.
 */
static __always_inline int skb_wrap_v4(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
				       const struct addr *own, __u16 inside)
{
	struct wrap4 wrap = {
		.ip = {
			.version = 4, .ihl = 5, .ttl = WRAP_TTL, .protocol = IPPROTO_UDP,
			.tot_len = bpf_htons(inside + WRAP_V4),
			.frag_off = bpf_htons(0x4000), /* do not fragment */
			.saddr = addr_v4(own), .daddr = addr_v4(&to->saddr),
		},
		.head = wrap_head(p, inside),
		.addr = addr_v4(&to->daddr), .port = to->dport,
	};

	if (bpf_skb_load_bytes(skb, p->l3 + offsetof(struct iphdr, tos), &wrap.ip.tos, 1))
		return 0;
	wrap.ip.tos &= 0xfc;
	wrap.ip.check = ~csum_fold16(bpf_csum_diff(NULL, 0, (__be32 *)&wrap.ip, sizeof(wrap.ip), 0));
	return !bpf_skb_adjust_room(skb, sizeof(wrap), BPF_ADJ_ROOM_MAC, WRAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) &&
	       !bpf_skb_store_bytes(skb, p->l3, &wrap, sizeof(wrap), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int skb_wrap_v6(struct __sk_buff *skb, const struct packet *p, const struct tuple *to,
				       const struct addr *own, __u16 inside)
{
	struct wrap6 wrap = {
		.ip = {
			.hop_limit = WRAP_TTL, .nexthdr = IPPROTO_UDP,
			.payload_len = bpf_htons(inside + WRAP_V6 - sizeof(struct ipv6hdr)),
		},
		.head = wrap_head(p, inside),
		.addr = to->daddr, .port = to->dport,
	};

	/* The flow label, too, for those who spread packets by it (RFC 6438). */
	if (bpf_skb_load_bytes(skb, p->l3, &wrap.ip, 4))
		return 0;
	*(__be32 *)&wrap.ip &= bpf_htonl(0xffcfffff);
	__builtin_memcpy(&wrap.ip.saddr, own, sizeof(*own));
	__builtin_memcpy(&wrap.ip.daddr, &to->saddr, sizeof(to->saddr));
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

/* Whether a packet is one that another node has wrapped for this one; all others at that port are somebody else's. */
static __always_inline int is_wrapped(const struct packet *p, const struct wrap_head *head)
{
	__u8 words = p->v4 ? BACKEND_WORDS_V4 : BACKEND_WORDS_V6;

	return head->options == words + 1 && head->flags == GENEVE_CRITICAL &&
	       head->inner == bpf_htons(p->v4 ? ETH_P_IP : ETH_P_IPV6) &&
	       head->class == bpf_htons(OPTION_CLASS) && head->type == OPTION_BACKEND && head->length == words;
}

/*
 * Takes the wrapping off a packet that one of the other nodes has sent to this one, and gives the backend in
 * `to`. `p` is not read anew. 1: done. 0: it is none, and is as it was. Below 0: it is lost.
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
	return bpf_skb_adjust_room(skb, -(__s32)size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? -1 : 1;
}

#endif
