// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Everything that runs in the kernel, as one object: one BTF for the agent to read, one load,
 * one set of maps. Programs that a node does not need are left out when it is loaded.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "config.h"

#include "sock.c"
#include "dialled.c"
#include "xdp.c"
#include "tc.c"

/*
 * The agent reads constants and layouts from BTF, where the compiler puts a type only if a
 * variable, a map or a function's arguments need it. No program calls this one and libbpf does
 * not load it: it is here so that each enum of abi.h is needed, and each struct that no map holds.
 */
struct abi_types {
	enum frontend_kind frontend_kind;
	enum frontend_flag frontend_flag;
	enum set_index set_index;
	enum algorithm algorithm;
	enum service_flag service_flag;
	enum node_flag node_flag;
	enum backend_flag backend_flag;
	enum flow_flag flow_flag;
	enum device_mode device_mode;
	enum device_flag device_flag;
	enum device_why device_why;
	enum tc_hook tc_hook;
	enum reason reason;
	struct udp_dialled udp_dialled;
};

__attribute__((used)) static int abi_types(const struct abi_types *types)
{
	return types->reason;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
