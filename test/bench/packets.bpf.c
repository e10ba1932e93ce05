// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Stands before a program that is measured by BPF_PROG_TEST_RUN with many repetitions: the kernel hands
 * every repetition the packet as the last one left it, so the frame is written anew each time, with
 * another client port, and the program gets it by a tail call. What that costs is measured by an empty
 * program in its place, and taken off.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define FRAME 128

struct template {
	__u64 frame[FRAME / 8];
	__u32 client_port; /* where it stands in the frame */
	__u32 mask; /* how many flows there are, less one */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct template);
} template SEC(".maps");

/* How many packets there have been: the flow of the next one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_xdp SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_tc SEC(".maps");

static __always_inline void restore(__u8 *data, __u8 *end)
{
	__u32 zero = 0;
	struct template *from = bpf_map_lookup_elem(&template, &zero);
	__u64 *count = bpf_map_lookup_elem(&sent, &zero);
	__u32 at;

	if (!from || !count || data + FRAME > end)
		return;
	at = from->client_port;
	if (at > FRAME - 2)
		return;
	/* An odd factor meets every port once, and neighbours never after one another. */
	*(__u16 *)((__u8 *)from->frame + at) = (__u16)((*count & from->mask) * 40503);
	__builtin_memcpy((__u64 *)data, from->frame, FRAME);
	*count += 1;
}

SEC("xdp.frags")
int restore_xdp(struct xdp_md *ctx)
{
	restore((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	bpf_tail_call(ctx, &next_xdp, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags")
int empty_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc")
int restore_tc(struct __sk_buff *ctx)
{
	restore((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	bpf_tail_call(ctx, &next_tc, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int empty_tc(struct __sk_buff *ctx)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
