/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SCTP's checksum, CRC32c (RFC 9260, appendix A), updated by what changed. Like every CRC it is
 * linear: to change bits of a message changes its CRC by those bits times x^k modulo the
 * polynomial, k being how many bits follow. So nothing is read but the ports.
 */
#ifndef MAGLANE_SCTP_H
#define MAGLANE_SCTP_H

#include "ctx_tc.h"

/* Polynomials modulo x^32 + ... have their lowest power in the highest bit, as CRC32c has it. */
#define CRC32C_POLYNOMIAL 0x82f63b78

/*
 * `a` if the bit is 1, else 0. Without a branch, and hidden from the compiler, which would make
 * one of it: the verifier walks both ways of each.
 */
static __always_inline __u32 crc32c_if(__u32 bit, __u32 a)
{
	__u32 mask = -(bit & 1);

	asm volatile("" : "+r"(mask));
	return a & mask;
}

static __always_inline __u32 crc32c_times_x(__u32 a)
{
	return a >> 1 ^ crc32c_if(a, CRC32C_POLYNOMIAL);
}

/* Global, as all here that is long: proven once, not at each call. */
__noinline __u32 crc32c_times(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int bit = 31; bit >= 0; bit--) {
		product ^= crc32c_if(a >> bit, b);
		b = crc32c_times_x(b);
	}
	return product;
}

/* `a`, with `bytes` more bytes of zeros behind it: times x^(8 * bytes). */
__noinline __u32 crc32c_shifted(__u32 a, __u32 bytes)
{
	/* x^(8 * 2^i) */
	const __u32 powers[] = {
		0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c,
		0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
		0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
		0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
	};

#pragma unroll
	for (int i = 0; i < 16; i++)
		a ^= crc32c_if(bytes >> i, a ^ crc32c_times(a, powers[i]));
	return a;
}

/* The least significant byte comes first, in the packet as in the register. */
static __always_inline __u32 crc32c_word(__u32 packet)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return packet;
#else
	return __builtin_bswap32(packet);
#endif
}

/*
 * Turns an SCTP packet into `to`, `hops` further. 0: it could not be done, or not all of it.
 * The sum knows no addresses. 0 in its place stands for one that hardware is yet to make (a
 * packet of this machine), which is left to it.
 */
__noinline int skb_rewrite_sctp(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, __u8 hops)
{
	__u32 from, ports, crc = 0;
	const __u32 field = 8;
	long err;

	if (!p || !to)
		return 0;
	__builtin_memcpy(&from, &p->tuple.sport, sizeof(from));
	__builtin_memcpy(&ports, &to->sport, sizeof(ports));
	err = bpf_skb_load_bytes(skb, p->l4 + field, &crc, sizeof(crc));
	if (crc && from != ports) {
		crc ^= crc32c_word(crc32c_shifted(crc32c_word(from ^ ports), p->l3 + p->l3_len - p->l4));
		err |= bpf_skb_store_bytes(skb, p->l4 + field, &crc, sizeof(crc), BPF_F_RECOMPUTE_CSUM);
	}
	err |= bpf_skb_store_bytes(skb, p->l4, &ports, sizeof(ports), BPF_F_RECOMPUTE_CSUM);
	if (p->v4)
		err |= skb_write_v4(skb, p, to, csum_addresses(&p->tuple, to), hops);
	else
		err |= skb_write_v6(skb, p, to, hops);
	return !err;
}

#endif
