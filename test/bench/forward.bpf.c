// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Traffic of many UDP flows for a node that forwards it, made and taken at the far end of the node's cable:
 *
 *   generate -- device [cable] eth0 of the node     (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES)
 *   sink     <- device [cable] eth0 of the node     (XDP)
 *
 * All of it runs in softirq on the CPU of the one who generates, the node's part too.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME 64
#define FIRST_PORT 1024

struct traffic {
	__u64 frame[FRAME / 8]; /* UDP over IPv4; of source port 0, and its checksum accordingly */
	__u32 device; /* where frames are sent to */
	__u32 flows; /* a power of two */
	__be32 backend;
	__be32 client;
	__be16 backend_port;
	__be16 frontend_port;
	__u32 answers; /* whether the sink answers in the backend's stead */
};

struct counts {
	__u64 sent;
	__u64 arrived; /* at the backend */
	__u64 answered; /* to the client */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

/* The frame is written anew each time: the kernel takes pages again as the last one left them. */
SEC("xdp.frags")
int generate(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct traffic *of = bpf_map_lookup_elem(&traffic, &zero);
	struct counts *count = bpf_map_lookup_elem(&counts, &zero);
	struct udphdr *udp;
	__u32 sum;

	if (!of || !count || data + FRAME > end)
		return XDP_ABORTED;
	__builtin_memcpy((__u64 *)data, of->frame, FRAME);
	udp = (void *)(data + sizeof(struct ethhdr) + sizeof(struct iphdr));
	/* An odd factor meets every port once, and neighbours never after one another. */
	udp->source = bpf_htons(FIRST_PORT + (count->sent++ * 40503 & (of->flows - 1)));
	sum = (__u16)~udp->check + udp->source;
	sum = (sum & 0xffff) + (sum >> 16);
	udp->check = sum == 0xffff ? 0xffff : ~sum;
	return bpf_redirect(of->device, 0);
}

static __always_inline void answer(struct ethhdr *eth, struct iphdr *ip, struct udphdr *udp)
{
	__u8 mac[ETH_ALEN];
	__be32 address = ip->saddr;
	__be16 port = udp->source;

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
	ip->saddr = ip->daddr;
	ip->daddr = address;
	udp->source = udp->dest;
	udp->dest = port;
}

SEC("xdp.frags")
int sink(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u32 zero = 0;
	struct traffic *of = bpf_map_lookup_elem(&traffic, &zero);
	struct counts *count = bpf_map_lookup_elem(&counts, &zero);

	if (!of || !count || (void *)(udp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP || ip->ihl != 5)
		return XDP_PASS;
	if (ip->daddr == of->client && udp->source == of->frontend_port) {
		count->answered++;
		return XDP_DROP;
	}
	if (ip->daddr != of->backend || udp->dest != of->backend_port)
		return XDP_PASS;
	count->arrived++;
	if (!of->answers)
		return XDP_DROP;
	answer(eth, ip, udp);
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

/* In place of a node: what it costs to generate. */
SEC("xdp.frags")
int drop(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct counts *count = bpf_map_lookup_elem(&counts, &zero);

	if (count)
		count->arrived++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
