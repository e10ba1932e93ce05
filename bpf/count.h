/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One counter for each way out of a program. */
#ifndef MAGLANE_COUNT_H
#define MAGLANE_COUNT_H

#include "maps.h"

/*
 * Counts one decision and the bytes it was about (0 for a socket). Not atomic: each CPU has
 * its own, and packets do not preempt each other; a socket hook that is preempted in the
 * middle may lose one, which is cheaper than a locked add on each packet.
 */
static __always_inline void count(enum reason why, __u64 bytes)
{
	__u32 index = why;
	struct counter *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return;
	counter->packets += 1;
	counter->bytes += bytes;
}

#endif
