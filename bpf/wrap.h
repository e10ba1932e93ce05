/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that nodes send each other as they are, in a packet of their own: Geneve (RFC 8926)
 * with one option, that says which backend was chosen. See docs/decisions/dsr.md.
 */
#ifndef MAGLANE_WRAP_H
#define MAGLANE_WRAP_H

#include "config.h"
#include "csum.h"
#include "host.h"
#include "parse.h"

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

union wrap {
	struct wrap4 v4;
	struct wrap6 v6;
};

static __always_inline void fill_wrap_v4(struct wrap4 *wrap, const struct packet *p, const struct tuple *to,
					 const struct addr *own, __u16 inside, __be32 first)
{
	*wrap = (struct wrap4){
		.ip = {
			.version = 4, .ihl = 5, .tos = bpf_ntohl(first) >> 16 & 0xfc, .ttl = WRAP_TTL, .protocol = IPPROTO_UDP,
			.tot_len = bpf_htons(inside + WRAP_V4),
			.frag_off = bpf_htons(0x4000), /* do not fragment */
			.saddr = addr_v4(own), .daddr = addr_v4(&to->saddr),
		},
		.head = wrap_head(p, inside),
		.addr = addr_v4(&to->daddr), .port = to->dport,
	};
	wrap->ip.check = ~csum_fold16(bpf_csum_diff(NULL, 0, (__be32 *)&wrap->ip, sizeof(wrap->ip), 0));
}

/* Those who spread packets over paths go by the flow label, too (RFC 6438). */
static __always_inline void fill_wrap_v6(struct wrap6 *wrap, const struct packet *p, const struct tuple *to,
					 const struct addr *own, __u16 inside, __be32 first)
{
	*wrap = (struct wrap6){
		.ip = {
			.hop_limit = WRAP_TTL, .nexthdr = IPPROTO_UDP,
			.payload_len = bpf_htons(inside + WRAP_V6 - sizeof(struct ipv6hdr)),
		},
		.head = wrap_head(p, inside),
		.addr = to->daddr, .port = to->dport,
	};
	*(__be32 *)&wrap->ip = first & bpf_htonl(0xffcfffff);
	__builtin_memcpy(&wrap->ip.saddr, own, sizeof(*own));
	__builtin_memcpy(&wrap->ip.daddr, &to->saddr, sizeof(to->saddr));
}

/*
 * Fills in what goes before a packet of `inside` bytes, from `own` to the node to->saddr, for the backend
 * to->daddr there. Congestion is not signalled through the wrapping (RFC 6040, 4.1: compatibility mode), so
 * of the traffic class, in the `first` word of the packet's IP header, only the upper six bits are taken
 * over. Returns its size, bytes.
 */
static __always_inline __u32 fill_wrap(union wrap *wrap, const struct packet *p, const struct tuple *to,
				       const struct addr *own, __u16 inside, __be32 first)
{
	if (p->v4) {
		fill_wrap_v4(&wrap->v4, p, to, own, inside, first);
		return WRAP_V4;
	}
	fill_wrap_v6(&wrap->v6, p, to, own, inside, first);
	return WRAP_V6;
}

/* What has become of a packet that may be wrapped. */
enum opened {
	OPENED_NOT = 0, /* it is somebody else's, and as it was */
	OPENED,         /* what was inside is to be read anew, and its backend is known */
	OPENED_LOST,
};

/* Before what was inside is read. It comes from outside. */
static __always_inline void forget_packet(struct packet *p)
{
	__builtin_memset(p, 0, sizeof(*p));
}

/* Whether a packet is one that another node has wrapped for this one; all others at that port are somebody else's. */
static __always_inline int is_wrapped(const struct packet *p, const struct wrap_head *head)
{
	__u8 words = p->v4 ? BACKEND_WORDS_V4 : BACKEND_WORDS_V6;

	return head->options == words + 1 && head->flags == GENEVE_CRITICAL &&
	       head->inner == bpf_htons(p->v4 ? ETH_P_IP : ETH_P_IPV6) &&
	       head->class == bpf_htons(OPTION_CLASS) && head->type == OPTION_BACKEND && head->length == words;
}

/* At a hook, which is a constant. 0: done. */
static __always_inline long load_bytes(void *ctx, enum hook hook, __u32 at, void *to, __u32 size)
{
	return hook == HOOK_XDP ? bpf_xdp_load_bytes(ctx, at, to, size) : bpf_skb_load_bytes(ctx, at, to, size);
}

/* The backend that a packet from another node names, into `to`. The size of the wrapping, bytes; 0: it is none. */
static __always_inline __u32 read_wrap(void *ctx, enum hook hook, const struct packet *p, struct tuple *to)
{
	__u32 at = p->l4, header = p->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	struct wrap_head head;
	__be32 v4 = 0;
	long err;

	if (p->l4 - p->l3 != header || !is_from_peer(p) || load_bytes(ctx, hook, at, &head, sizeof(head)) || !is_wrapped(p, &head))
		return 0;
	at += sizeof(head);
	if (p->v4) {
		err = load_bytes(ctx, hook, at, &v4, sizeof(v4));
		to->daddr = addr_from_v4(v4);
		at += sizeof(v4);
	} else {
		err = load_bytes(ctx, hook, at, &to->daddr, sizeof(to->daddr));
		at += sizeof(to->daddr);
	}
	if (err || load_bytes(ctx, hook, at, &to->dport, sizeof(to->dport)))
		return 0;
	return p->v4 ? WRAP_V4 : WRAP_V6;
}

#endif
