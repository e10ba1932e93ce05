/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every structure that the kernel programs and the agent share, once.
 *
 * The agent never repeats a layout: its codecs are generated from this object's BTF
 * (`make build` writes agent/dataplane/generated/abi.ts). Rules that keep that safe:
 * padding is explicit, sizes are asserted, ports and addresses are in network byte
 * order and typed __be16 / struct addr, everything else is in host byte order.
 */
#ifndef MAGLANE_ABI_H
#define MAGLANE_ABI_H

#include <linux/types.h>

/* Raised when a pinned map of an older agent cannot be read as it is. */
#define ABI_VERSION 4

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d. There is no other address type. */
struct addr {
	__be32 w[4];
};

/* ---- frontends: which address, port and protocol belong to which service port ---- */

struct frontend_key {
	struct addr addr;
	__be16 port;
	__u8 proto; /* IPPROTO_* */
	__u8 pad;
};

enum frontend_kind {
	FRONTEND_CLUSTER_IP = 1,
	FRONTEND_NODE_PORT = 2,
	FRONTEND_EXTERNAL_IP = 3,
	FRONTEND_LOAD_BALANCER = 4,
	/* The address itself: port and protocol of its key are 0, and so is its service. */
	FRONTEND_ADDRESS = 5,
};

enum frontend_flag {
	/* Only the node's own processes may use it: a nodePort on 127.0.0.1 or ::1. */
	FRONTEND_HOST_ONLY = 1,
	/* Only for sources in `source_ranges` of its service: left to the packet path, which knows the source. */
	FRONTEND_SOURCE_RANGES = 2,
	/* FRONTEND_ADDRESS: what is no frontend's there is rejected, unless an interface holds the address. */
	FRONTEND_OWNED = 4,
	/* FRONTEND_ADDRESS: answers echo requests; some service there has endpoints. */
	FRONTEND_PING = 8,
};

struct frontend {
	__u32 service; /* key of the map `services` */
	__u8 kind;     /* enum frontend_kind */
	__u8 flags;    /* enum frontend_flag */
	__u16 pad;
};

/* ---- services: one service port of one IP family ---- */

/*
 * A set of backends is a region of the ring: `count` members, one slot each, and behind
 * them a Maglev table of `table` slots (a prime; 0: none was built). Hashes draw from the
 * table, where there is one, all else from the members: a set changes by building a new region
 * aside and replacing the whole service record, which the kernel does atomically.
 */
struct backend_set {
	__u32 base;
	__u32 count;
	__u32 table;
};

enum set_index {
	SET_CLUSTER = 0, /* every usable endpoint */
	SET_LOCAL = 1,   /* those on this node */
	SETS = 2,
};

/* How sockets choose. Packets choose by hash, always: see balance.h. */
enum algorithm {
	ALGORITHM_RANDOM = 1,
	ALGORITHM_MAGLEV = 2,
	ALGORITHM_ROUND_ROBIN = 3,
	ALGORITHM_LEAST_CONNECTIONS = 4,
	ALGORITHM_SOURCE_HASH = 5,
};

enum service_flag {
	SERVICE_INTERNAL_LOCAL = 1, /* internalTrafficPolicy: Local */
	SERVICE_EXTERNAL_LOCAL = 2, /* externalTrafficPolicy: Local */
	SERVICE_HAS_ANY = 4,        /* some endpoint exists somewhere: an empty set drops, not rejects */
};

struct service {
	struct backend_set sets[SETS];
	__u32 affinity_seconds; /* ClientIP affinity; 0: none */
	__u8 algorithm;         /* enum algorithm */
	__u8 flags;             /* enum service_flag */
	__u8 proto;             /* IPPROTO_* */
	__u8 family;            /* 4 or 6 */
	/* Names are for people and for an agent that restarts: a service keeps its id. */
	char namespace[64];
	char name[64];
	char port_name[64];
	__u32 turn; /* round-robin: the kernel adds, the agent begins anywhere with each record */
};

/* ---- who may use a frontend with FRONTEND_SOURCE_RANGES: a longest-prefix trie ---- */

struct source_range_key {
	__u32 prefixlen; /* bits of all that follows: 32 and those of the range */
	__u32 service;
	struct addr addr;
};

/* ---- what holds on the whole node: one record ---- */

struct cidr {
	struct addr net;
	struct addr mask;
};

enum node_flag {
	NODE_DETECTS_V4 = 1,     /* `pods[0]` tells whether a source is a pod (detectLocalMode by CIDR) */
	NODE_DETECTS_V6 = 2,     /* `pods[1]`, likewise */
	NODE_DETECTS_DEVICE = 4, /* the device tells: DEVICE_DETECTED */
	NODE_OWNS_BEYOND = 8,    /* addresses with FRONTEND_OWNED lie outside `service_cidrs`, too */
	NODE_MASQUERADES_ALL = 16, /* packets to cluster IPs, whoever sends them (masqueradeAll) */
	NODE_ADDRESS_V4 = 32,    /* `addr[0]` is known */
	NODE_ADDRESS_V6 = 64,    /* `addr[1]`, likewise */
};

#define SERVICE_CIDRS_MAX 16

/* Written through mmap: the agent sets service_cidr_count to 0 while it changes them. */
struct node {
	__u32 flags; /* enum node_flag */
	__u32 service_cidr_count;
	struct cidr pods[2];
	/* As the other nodes know this one: what is wrapped for them comes from it, and to it. */
	struct addr addr[2];
	/* In these an address without FRONTEND_ADDRESS is nobody's: dropped. */
	struct cidr service_cidrs[SERVICE_CIDRS_MAX];
};

/* ---- backends: the index is the id; each belongs to one service port ---- */

enum backend_flag {
	BACKEND_SERVING = 1, /* in a set or not; without it, UDP flows choose again */
	BACKEND_LOCAL = 2,   /* on this node */
	BACKEND_TERMINATING = 4,
	BACKEND_IN_CLUSTER = 8, /* in the set SET_CLUSTER now: affinity may choose it again */
	BACKEND_IN_LOCAL = 16,  /* in the set SET_LOCAL now */
	BACKEND_HOSTED = 32,    /* `hosts` has the address of its node: packets are sent there as they are */
};

struct backend {
	struct addr addr;
	__be16 port;
	__u8 flags; /* enum backend_flag */
	__u8 pad;
	__u32 service;
	__u64 connections; /* flows and sockets that chose it; the kernel adds, atomically */
};

/* One page of the ring, an array of backend ids cut into map elements. */
#define RING_CHUNK 1024
struct ring_chunk {
	__u32 slot[RING_CHUNK];
};

/* ---- flows: connection tracking of the packet path, one entry a direction ---- */

/* A packet as it arrives, before any rewriting. */
struct tuple {
	struct addr saddr;
	struct addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

enum flow_flag {
	FLOW_REPLY = 1,    /* this entry rewrites what the backend answers */
	FLOW_FORWARD = 2,  /* the rewritten packet does not go on up the stack: it is masqueraded */
	FLOW_FIN = 4,      /* this direction has closed */
	FLOW_RST = 8,
	FLOW_ASSURED = 16, /* the backend has answered */
	FLOW_NODE = 32,    /* the client is this node itself */
	/* Sent on, wrapped, as it is: `to` has the backend, with its node's address as saddr. It has no other half. */
	FLOW_DSR = 64,
};

/*
 * What to make of a packet whose tuple is the key. Either entry of a flow can be rebuilt
 * from the other: the reply's key is the reverse of `to`, and the reply is rewritten to
 * the reverse of the key. So an evicted half heals at the next packet of the other.
 */
struct flow {
	struct tuple to;
	__u32 service;
	__u32 backend;
	__u32 seen; /* coarse seconds since boot; written at most once a second */
	__u8 flags; /* enum flow_flag */
	__u8 pad[3];
};

/*
 * What most packets are told by: whether a server's end (address, port and protocol) is a frontend, and whether one with
 * its hash has had a flow, dialled as a frontend or serving as a backend. One bit for each hash_end_point(), 64 in an element.
 * A bit that is not set spares a lookup; one that outlives what it stands for costs one, no more. Those of frontends the
 * agent makes anew when it starts, those of flows are never cleared.
 */
#define ENDS_BITS 18
#define ENDS_WORDS 4096
struct ends {
	__u64 frontends; /* the agent alone writes, before the frontend itself */
	__u64 dialled;   /* packets alone write this and the next */
	__u64 served;
};

/* How packets between two addresses left a moment ago, and with which link-layer addresses. */
#define WAYS_BITS 10
struct way {
	struct addr saddr;
	struct addr daddr;
	__u32 from; /* the device that they came in by */
	__u32 time; /* of way_time(): it holds until that changes */
	__u32 ifindex;
	__u16 mtu;
	__u8 xdp; /* XDP may send them so */
	__u8 pad;
	__u8 smac[6];
	__u8 dmac[6];
};

/* Which datagram a fragment is a part of (RFC 791, 3.2; RFC 8200, 4.5). */
struct fragment_key {
	struct addr saddr;
	struct addr daddr;
	__be32 id;
	__u8 proto;
	__u8 pad[3];
};

/* What its first fragment says of the others. */
struct fragment_ports {
	__be16 sport;
	__be16 dport;
};

/* Of one datagram as many are kept as come before the first, and of each so many bytes, from its IP header on. */
#define HELD_MAX 8
#define HELD_BYTES 2048

struct held_key {
	struct fragment_key datagram;
	__u32 slot; /* less than HELD_MAX; they are filled from 0 on */
};

/* A copy of a fragment that came before the first of its datagram. */
struct held_fragment {
	__u32 since; /* coarse seconds since boot */
	__u32 size;
	__u8 bytes[HELD_BYTES];
};

/* What this CPU has sent of the errors that routers make, in one second of the coarse monotonic clock. */
struct icmp_budget {
	__u32 second;
	__u32 sent;
};

/* ---- client affinity ---- */

struct affinity_key {
	__u32 service;
	/* The client's address; for a socket, whose source is not known yet, its network
	 * namespace: ff00::<cookie>, a multicast address no client can have. */
	struct addr client;
};

struct affinity {
	__u32 backend;
	__u32 used; /* coarse seconds since boot, of the last new connection */
};

/* ---- sockets ---- */

/* Socket-local storage of a connected socket: what it dialled and what it got. */
struct sock_peer {
	struct addr vip;
	struct addr addr;
	__be16 vip_port;
	__be16 port;
	__u32 service;
	__u32 backend;
	__u32 counted; /* the backend that counts this socket among its open ones; 0: none */
};

/* Connected sockets that a backend has now. Signed: a count that is wrong may be too small. */
struct open_sockets {
	__s32 counted; /* up at connect(), down at close() */
	__s32 found;   /* by the iterator mg_find_open, for the agent to compare */
};

/* A socket as the kernel's sock_diag knows it: the family, then struct inet_diag_sockid. */
struct sock_id {
	__u32 family; /* AF_INET or AF_INET6 */
	__be16 sport;
	__be16 dport;
	__be32 src[4];
	__be32 dst[4];
	__u32 ifindex;
	__u32 cookie[2];
};

/* What the iterator mg_udp_dialled says of each connected UDP socket that came through the hooks. */
struct udp_dialled {
	__u32 netns; /* inode number of its network namespace */
	struct sock_id id;
	struct sock_peer peer;
};

/* Unconnected UDP: a socket may talk to many VIPs. One key a direction. */
struct udp_peer_key {
	__u64 cookie;
	struct addr addr;
	__be16 port;
	__u8 reply; /* 0: addr is the VIP; 1: addr is the backend */
	__u8 pad[5];
};

struct udp_peer {
	struct addr addr; /* the other end: backend for a VIP, VIP for a backend */
	__be16 port;
	__u16 pad;
	__u32 service;
	__u32 backend;
};

/* ---- devices the agent has attached to; the key is the ifindex ---- */

enum device_mode {
	DEVICE_XDP = 1, /* native XDP, with tc behind it for what XDP must not forward */
	DEVICE_XDP_GENERIC = 2,
	DEVICE_TC = 3,
};

enum device_flag {
	DEVICE_XDP_TX = 1,  /* XDP may send from and redirect to this device */
	DEVICE_TUNNEL = 2,
	DEVICE_POD = 4,      /* leads to a pod of this node */
	DEVICE_DETECTED = 8, /* detectLocalMode says that what comes in here is a pod's */
};

struct device {
	struct addr addr4; /* source of what is forwarded out of it; all zero: none */
	struct addr addr6;
	__u8 mode;  /* enum device_mode */
	__u8 flags; /* enum device_flag */
	__u8 why;   /* enum device_why */
	__u8 hook;  /* enum tc_hook */
	char name[16];
};

/* Why a device runs in its mode: shown by `maglane status`. */
enum device_why {
	WHY_ASKED = 1,      /* --xdp-mode said so */
	WHY_NATIVE = 2,     /* the driver took a native XDP program */
	WHY_VETH = 3,       /* a veth cannot vouch for checksums and for delivery of XDP_TX */
	WHY_TUNNEL = 4,     /* XDP cannot see inside or send into it */
	WHY_REFUSED = 5,    /* the driver refused XDP */
	WHY_POD = 6,        /* it leads to a pod of this node */
};

enum tc_hook {
	TC_TCX = 1,
	TC_CLSACT = 2,
};

/* ---- verdicts: the index of the map `counters`; one name for each way out ---- */

enum reason {
	REASON_FOREIGN = 0,           /* not ours: untouched */
	REASON_NOT_IP,                /* not ours: neither IPv4 nor IPv6 */
	REASON_UNPARSED,              /* not ours: truncated, or headers we do not follow */
	REASON_FRAGMENT,              /* a fragment of a datagram whose ports are not known: untouched */
	REASON_FRAGMENT_HELD,         /* it may be ours: a copy waits for the first fragment; it passes, unless it can be nobody else's */
	REASON_NEW_LOCAL,             /* new flow to a backend on this node */
	REASON_NEW_REMOTE,            /* new flow, sent on to another node */
	REASON_LOCAL,                 /* established, to a backend on this node */
	REASON_REMOTE,                /* established, sent on under another source */
	REASON_NEW_DSR,               /* new flow, sent on as it is to the node of its backend */
	REASON_DSR,                   /* established, likewise */
	REASON_REPLY_LOCAL,           /* answer to a client that the backend has seen as it is */
	REASON_REPLY_REMOTE,          /* answer to what was sent on, sent back to the client */
	REASON_ECHO,                  /* a ping of a virtual IP: answered */
	REASON_TO_TC,                 /* XDP leaves it, untouched, to tc on the same device */
	REASON_REJECT_NO_ENDPOINTS,   /* no endpoint: rejected with ICMP */
	REASON_REJECT_UNKNOWN_PORT,   /* an owned address, but none of its frontends: likewise */
	REASON_DROP_UNALLOCATED,      /* in a ServiceCIDR, but no Service's address */
	REASON_DROP_SOURCE_RANGES,    /* loadBalancerSourceRanges leave the source out */
	REASON_DROP_NO_LOCAL,         /* policy Local, no endpoint here */
	REASON_DROP_NO_FLOW,          /* this node's RST to an answer whose flow is forgotten */
	REASON_DROP_FLOWS_FULL,       /* the map `flows` took no entry */
	REASON_DROP_SNAT_FULL,        /* no source port left towards this backend */
	REASON_DROP_NO_SOURCE,        /* no address to forward from in this family */
	REASON_DROP_TTL,              /* TTL or hop limit spent: answered with ICMP time exceeded */
	REASON_TOO_BIG,               /* too long for the way on: answered with the MTU that would do */
	REASON_DROP_NO_ROUTE,         /* no route to the backend or back to the client */
	REASON_DROP_DSR,              /* came from another node as it is, and is no packet of a flow */
	REASON_DROP_INCONSISTENT,     /* a map entry points at nothing: an agent's bug */
	REASON_DROP_WRITE,            /* the kernel refused to change the packet */
	REASON_SOCK_FOREIGN,          /* connect or send to no frontend: untouched */
	REASON_SOCK_TRANSLATED,       /* a socket was given a backend */
	REASON_SOCK_REFUSED,          /* no endpoint: ECONNREFUSED */
	REASON_SOCK_INCONSISTENT,
	REASONS,
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* ---- load-time configuration, in .rodata ---- */

struct config {
	__u64 host_netns; /* cookie of the node's own network namespace */
	__u16 snat_min;   /* source ports reserved for forwarding, host byte order */
	__u16 snat_max;
	__be16 dsr_port; /* UDP port of packets that nodes send each other as they are; 0: none */
	__u16 pad;
};

/* ---- what the agent says of itself, for the commands, also when it is dead ---- */

struct agent_info {
	__u32 abi_version;
	__u32 pid;
	__u64 started; /* ms since the epoch */
	__u64 synced;  /* ms since the epoch of the last complete write; 0: never */
	char node_name[256];
	char version[32];
	char source[64];
};

_Static_assert(sizeof(struct frontend_key) == 20, "frontend_key");
_Static_assert(sizeof(struct frontend) == 8, "frontend");
_Static_assert(sizeof(struct service) == 228, "service");
_Static_assert(sizeof(struct source_range_key) == 24, "source_range_key");
_Static_assert(sizeof(struct node) == 8 + 19 * 32, "node");
_Static_assert(sizeof(struct backend) == 32, "backend");
_Static_assert(sizeof(struct tuple) == 40, "tuple");
_Static_assert(sizeof(struct flow) == 56, "flow");
_Static_assert(sizeof(struct way) == 60, "way");
_Static_assert(sizeof(struct held_key) == 44, "held_key");
_Static_assert(sizeof(struct held_fragment) == 8 + HELD_BYTES, "held_fragment");
_Static_assert(sizeof(struct affinity_key) == 20, "affinity_key");
_Static_assert(sizeof(struct sock_peer) == 48, "sock_peer");
_Static_assert(sizeof(struct open_sockets) == 8, "open_sockets");
_Static_assert(sizeof(struct sock_id) == 52, "sock_id");
_Static_assert(sizeof(struct udp_dialled) == 104, "udp_dialled");
_Static_assert(sizeof(struct udp_peer_key) == 32, "udp_peer_key");
_Static_assert(sizeof(struct udp_peer) == 28, "udp_peer");
_Static_assert(sizeof(struct device) == 52, "device");

#endif
