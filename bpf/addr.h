/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* struct addr: an IPv6 address, or an IPv4 one as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
#ifndef MAGLANE_ADDR_H
#define MAGLANE_ADDR_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define V4_MAPPED bpf_htonl(0xffff)

static __always_inline struct addr addr_from_v4(__be32 v4)
{
	return (struct addr){ .w = { 0, 0, V4_MAPPED, v4 } };
}

static __always_inline struct addr addr_from_v6(const __be32 v6[4])
{
	return (struct addr){ .w = { v6[0], v6[1], v6[2], v6[3] } };
}

static __always_inline int addr_is_v4(const struct addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == V4_MAPPED;
}

/* The IPv4 address of one that addr_is_v4(). */
static __always_inline __be32 addr_v4(const struct addr *a)
{
	return a->w[3];
}

static __always_inline int addr_equal(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] &&
	       a->w[3] == b->w[3];
}

static __always_inline int addr_is_unset(const struct addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

/* The last word first: it tells IPv4 addresses apart. */
static __always_inline int cidr_holds(const struct cidr *cidr, const struct addr *a)
{
	for (int i = 3; i >= 0; i--) {
		if ((a->w[i] & cidr->mask.w[i]) != cidr->net.w[i])
			return 0;
	}
	return 1;
}

#endif
