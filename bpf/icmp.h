/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors, made of the packet that they answer: cut to what is quoted of it, given new
 * headers in front and sent back where it came from. One small packet for one, so there is
 * nothing to amplify.
 */
#ifndef MAGLANE_ICMP_H
#define MAGLANE_ICMP_H

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include "ctx_tc.h"

#define ANSWER_TTL 64

struct error4 {
	struct iphdr ip;
	struct icmp_message icmp;
};

struct error6 {
	struct ipv6hdr ip;
	struct icmp_message icmp;
};

/* The error that a reason to reject means: to the one who asks, or as a router on the way. */
static __always_inline struct icmp_message error_for(const struct packet *p, const struct verdict *v)
{
	switch (v->why) {
	case REASON_DROP_TTL: /* time exceeded */
		return (struct icmp_message){ .type = p->v4 ? 11 : 3 };
	case REASON_TOO_BIG: /* fragmentation needed (RFC 1191), packet too big */
		return (struct icmp_message){
			.type = p->v4 ? 3 : 2, .code = p->v4 ? 4 : 0,
			.rest = bpf_htonl(v->route.mtu_result),
		};
	default: /* port unreachable */
		return (struct icmp_message){ .type = p->v4 ? 3 : 1, .code = p->v4 ? 3 : 4 };
	}
}

static __always_inline int is_routers_error(const struct verdict *v)
{
	return v->why == REASON_DROP_TTL || v->why == REASON_TOO_BIG;
}

/* Each CPU sends as many a second; the kernel's own bound (icmp_msgs_per_sec) is as large. */
#define ROUTERS_ERRORS_PER_SECOND 1000

/* Whether one more may be sent. Routers limit their errors (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f). */
static __always_inline int may_send_error(void)
{
	__u32 only = 0, now = coarse_seconds();
	struct icmp_budget *budget = bpf_map_lookup_elem(&icmp_budget, &only);

	if (!budget)
		return 0;
	if (budget->second != now) {
		budget->second = now;
		budget->sent = 0;
	}
	return budget->sent++ < ROUTERS_ERRORS_PER_SECOND;
}

/*
 * From the address that was asked, or from this router's own, where it has one. Not to this node
 * itself, which takes what comes in under its own address for forged.
 */
static __always_inline struct addr error_source(const struct packet *p, const struct verdict *v)
{
	struct addr own;

	if (!is_routers_error(v) || p->sender == SENDER_NODE)
		return p->tuple.daddr;
	own = source_on(p->ifindex, p);
	return addr_is_unset(&own) ? p->tuple.daddr : own;
}

/* IP header, options or extensions, and a TCP header. RFC 792 wants 8 bytes behind the IP
 * header; RFC 4443 as much as fits into 1280, of which no receiver reads more than this. */
#define QUOTE_MAX 128

/* Of a protocol that we do not follow, the 8 bytes or what there is of them, in whole words. */
static __always_inline __u32 quoted_l4(const struct __sk_buff *skb, const struct packet *p)
{
	__u32 there = skb->len - p->l4;

	if (p->tuple.proto == IPPROTO_TCP)
		return sizeof(struct tcphdr);
	if (p->tuple.proto == IPPROTO_SCTP)
		return SCTP_COMMON_HEADER; /* hardware may want to finish the checksum in it */
	return there < sizeof(struct udphdr) ? there & ~3 : sizeof(struct udphdr);
}

/* No error about an error (RFC 1122, 3.2.2; RFC 4443, 2.4). */
static __always_inline int is_icmp_error(const struct packet *p)
{
	if (p->kind == KIND_ERROR)
		return 1;
	if (p->v4)
		return p->tuple.proto == IPPROTO_ICMP &&
		       (p->icmp_type == 3 || p->icmp_type == 4 || p->icmp_type == 5 || p->icmp_type == 11 || p->icmp_type == 12);
	return p->tuple.proto == IPPROTO_ICMPV6 && p->icmp_type < 128;
}

/*
 * The quoted packet's own checksum may be partial: hardware would finish it on the way out,
 * within our quote, and spoil the checksum over it. So it gets the one value that finishing
 * it does not change: minus half of the sum of all the rest (mod 65535, where 1/2 is 32768).
 */
static __always_inline long settle_quoted_checksum(struct __sk_buff *skb, const struct packet *p)
{
	__u32 field = p->tuple.proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
						    : offsetof(struct udphdr, check);
	__be32 l4[sizeof(struct tcphdr) / 4] = {};
	__u16 settled = 0;
	long err;

	if (p->tuple.proto != IPPROTO_TCP && p->tuple.proto != IPPROTO_UDP)
		return 0;
	err = bpf_skb_store_bytes(skb, p->l4 + field, &settled, sizeof(settled), 0);
	if (p->tuple.proto == IPPROTO_TCP)
		err |= bpf_skb_load_bytes(skb, p->l4, l4, sizeof(struct tcphdr));
	else
		err |= bpf_skb_load_bytes(skb, p->l4, l4, sizeof(struct udphdr));
	if (err)
		return err;
	settled = csum_fold16((__u16)~csum_fold16(bpf_csum_diff(NULL, 0, l4, sizeof(l4), 0)) * 32768ULL);
	return bpf_skb_store_bytes(skb, p->l4 + field, &settled, sizeof(settled), 0);
}

/* The sum over what is quoted; negative: an error. */
static __always_inline __s64 sum_quote(struct __sk_buff *skb, const struct packet *p, __u32 size)
{
	__be32 quote[QUOTE_MAX / 4];

	/* 1 .. QUOTE_MAX, as it is: in a form that every verifier understands. */
	size = ((size - 1) & (QUOTE_MAX - 1)) + 1;
	if (bpf_skb_load_bytes(skb, p->l3, quote, size))
		return -1;
	return bpf_csum_diff(NULL, 0, quote, size, 0);
}

static __always_inline long write_error4(struct __sk_buff *skb, const struct packet *p,
					 const struct verdict *v, __u32 size, __u64 quote)
{
	struct addr source = error_source(p, v);
	struct error4 head = {
		.ip = {
			.version = 4, .ihl = 5, .ttl = ANSWER_TTL, .protocol = IPPROTO_ICMP,
			.tot_len = bpf_htons(sizeof(head) + size),
			.saddr = addr_v4(&source),
			.daddr = addr_v4(&p->tuple.saddr),
		},
		.icmp = error_for(p, v),
	};
	const int grown = sizeof(head);

	head.ip.check = ~csum_fold16(bpf_csum_diff(NULL, 0, (__be32 *)&head.ip, sizeof(head.ip), 0));
	head.icmp.checksum = ~csum_fold16(
		bpf_csum_diff(NULL, 0, (__be32 *)&head.icmp, sizeof(head.icmp), 0) + quote);
	if (bpf_skb_adjust_room(skb, grown, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3, &head, sizeof(head), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline long write_error6(struct __sk_buff *skb, const struct packet *p,
					 const struct verdict *v, __u32 size, __u64 quote)
{
	struct addr source = error_source(p, v);
	struct error6 head = {
		.ip = {
			.version = 6, .hop_limit = ANSWER_TTL, .nexthdr = IPPROTO_ICMPV6,
			.payload_len = bpf_htons(sizeof(head.icmp) + size),
		},
		.icmp = error_for(p, v),
	};
	const int grown = sizeof(head);
	__u64 sum = quote;

	__builtin_memcpy(&head.ip.saddr, &source, sizeof(head.ip.saddr));
	__builtin_memcpy(&head.ip.daddr, &p->tuple.saddr, sizeof(head.ip.daddr));
	/* The pseudo header: both addresses, length, protocol. */
	sum += bpf_csum_diff(NULL, 0, (__be32 *)&head.ip.saddr, 2 * sizeof(head.ip.saddr), 0);
	sum += bpf_htons(sizeof(head.icmp) + size) + bpf_htons(IPPROTO_ICMPV6);
	sum += bpf_csum_diff(NULL, 0, (__be32 *)&head.icmp, sizeof(head.icmp), 0);
	head.icmp.checksum = ~csum_fold16(sum);
	if (bpf_skb_adjust_room(skb, grown, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3, &head, sizeof(head), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Whether a frame was sent to this device alone: nothing else is answered (RFC 1122, 3.2.2). A
 * pod's frame is for the bridge which its device is a port of: another host's, as the device sees it.
 */
static __always_inline int is_meant_for_us(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->pkt_type == PACKET_HOST || p->sender == SENDER_NODE ||
	       (skb->pkt_type == PACKET_OTHERHOST && p->sender == SENDER_POD);
}

/* Sends a frame back to whom it came from: what this node itself was about to send, into it. Returns a tc action. */
static __always_inline int skb_send_back(struct __sk_buff *skb, const struct packet *p)
{
	__u8 macs[2 * ETH_ALEN], swapped[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return TC_ACT_SHOT;
	__builtin_memcpy(swapped, macs + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(swapped + ETH_ALEN, macs, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, p->sender == SENDER_NODE ? BPF_F_INGRESS : 0);
}

/* Makes of a packet the ICMP error that answers it, and sends that back. Returns a tc action. */
static __noinline int skb_reject(struct __sk_buff *skb, const struct packet *p, const struct verdict *v)
{
	__u32 size = p->l4 - p->l3 + quoted_l4(skb, p);
	__s64 quote;

	if (!is_meant_for_us(skb, p) || size > QUOTE_MAX || is_icmp_error(p) || p->fragment == FRAGMENT_LATER)
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(skb, p->l3 + size, 0) || settle_quoted_checksum(skb, p))
		return TC_ACT_SHOT;
	quote = sum_quote(skb, p, size);
	if (quote < 0)
		return TC_ACT_SHOT;
	if (p->v4 ? write_error4(skb, p, v, size, quote) : write_error6(skb, p, v, size, quote))
		return TC_ACT_SHOT;
	return skb_send_back(skb, p);
}

#endif
