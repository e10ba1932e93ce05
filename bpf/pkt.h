/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet as the core knows it: what parse.h has read from its bytes. */
#ifndef MAGLANE_PKT_H
#define MAGLANE_PKT_H

#include <linux/in.h>
#include "addr.h"

enum hook {
	HOOK_XDP = 1,
	HOOK_TC = 2,
};

/* Who sent a packet, as far as the place where it is met can tell. */
enum sender {
	SENDER_OUTSIDE, /* it comes in by an uplink or out of a tunnel; from a pod of another node, perhaps */
	SENDER_POD,     /* it comes out of a pod of this node */
	SENDER_NODE,    /* this node made it, and it leaves by an uplink */
};

/* What a packet's tuple was read from, and so what is to be rewritten. */
enum kind {
	KIND_PLAIN = 0, /* a TCP or UDP header */
	KIND_SCTP,
	KIND_ERROR, /* the packet that an ICMP error quotes: the tuple is that of its answers */
	KIND_LATER, /* what the first fragment of its datagram said: this one has no ports */
};

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST, /* the one with the ports */
	FRAGMENT_LATER,
};

/* What the core knows of a packet. It never sees its bytes. */
struct packet {
	struct tuple tuple;
	__u32 ifindex; /* the device where it was met */
	__u16 l3;      /* offset of the IP header in the frame */
	__u16 l4;      /* offset of what follows the IP headers, less than OFFSETS */
	__u32 l3_len;  /* as the IP header says; 0: larger than it can say. Of GSO packets, each segment's */
	__u8 hook;     /* enum hook */
	__u8 v4;
	__u8 ttl;      /* or hop limit */
	union {
		__u8 tcp_flags; /* of SCTP, too: see sctp_flags() */
		__u8 icmp_type;
	};
	__u8 tagged;   /* has a VLAN tag in the frame */
	__u8 sender;   /* enum sender */
	__u8 kind;     /* enum kind */
	__u8 fragment; /* enum fragment */
	__u8 l4_len;   /* of the TCP or UDP header */
	__u16 quoted_l4; /* KIND_ERROR: offset of the quoted packet's ports */
	__be32 fragment_id;
};

/* enum flow_flag knows the meaning; these are the bits on the wire (RFC 9293, 3.1). */
enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* A power of two above any offset that parse() can give: the verifier wants the bound again. */
#define OFFSETS 0x4000

enum parsed {
	PARSED_TUPLE,    /* the packet has addresses and ports */
	PARSED_PORTLESS, /* addresses, but no ports that we know of: they are 0 */
	PARSED_NOT_IP,
	PARSED_OTHER,    /* IP, but nobody's to translate or to refuse */
	PARSED_LATER,    /* a fragment, but not the first of its datagram: ports are 0 */
	PARSED_EXOTIC,   /* none of the above, but XDP looks no further: tc does */
	PARSED_BROKEN,   /* truncated, or more headers than we follow */
};

#endif
