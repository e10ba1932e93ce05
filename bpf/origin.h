/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the packet path knows that a socket does not: the address that a packet comes from. */
#ifndef MAGLANE_ORIGIN_H
#define MAGLANE_ORIGIN_H

#include "pkt.h"
#include "service.h"

/*
 * kube-proxy's short circuit of policy Local is for the node and for pods, as far as
 * detectLocalMode can tell them: a family without a detector has no pods.
 */
static __always_inline enum origin origin_of_packet(const struct packet *p)
{
	const struct node *self = get_node();
	const struct device *device;
	__u32 by_range = p->v4 ? NODE_DETECTS_V4 : NODE_DETECTS_V6;

	if (p->sender == SENDER_NODE)
		return FROM_INSIDE;
	if (!self)
		return FROM_OUTSIDE;
	if (p->sender == SENDER_POD)
		return self->flags & (by_range | NODE_DETECTS_DEVICE) ? FROM_INSIDE : FROM_OUTSIDE;
	if (self->flags & by_range && cidr_holds(&self->pods[p->v4 ? 0 : 1], &p->tuple.saddr))
		return FROM_INSIDE;
	if (!(self->flags & NODE_DETECTS_DEVICE))
		return FROM_OUTSIDE;
	device = bpf_map_lookup_elem(&devices, &p->ifindex);
	return device && device->flags & DEVICE_DETECTED ? FROM_INSIDE : FROM_OUTSIDE;
}

/* Whether a service's loadBalancerSourceRanges hold an address. */
static __always_inline int in_source_ranges(__u32 service, const struct addr *a)
{
	struct source_range_key key = {
		.prefixlen = 8 * (sizeof(key.service) + sizeof(key.addr)),
		.service = service,
		.addr = *a,
	};

	return bpf_map_lookup_elem(&source_ranges, &key) != NULL;
}

static __always_inline int in_service_cidrs(const struct node *self, const struct addr *a)
{
	for (__u32 i = 0; i < SERVICE_CIDRS_MAX && i < self->service_cidr_count; i++) {
		if (cidr_holds(&self->service_cidrs[i], a))
			return 1;
	}
	return 0;
}

#endif
