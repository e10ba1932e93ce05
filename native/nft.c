/* SPDX-License-Identifier: Apache-2.0 */
/* The chains of nftables, iptables-nft's among them. Read only: who changes rules has nft or iptables. */
#include "maglane.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <unistd.h>

struct reading {
	napi_env env;
	napi_value chains;
	uint32_t count;
};

static const char *family_name(uint8_t family)
{
	switch (family) {
	case NFPROTO_INET:
		return "inet";
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_ARP:
		return "arp";
	case NFPROTO_BRIDGE:
		return "bridge";
	case NFPROTO_NETDEV:
		return "netdev";
	default:
		return "";
	}
}

static int take_chain(const struct nlmsghdr *message, void *data)
{
	const struct nfgenmsg *header = NLMSG_DATA(message);
	const struct nlattr *found[NFTA_CHAIN_NAME + 1];
	struct reading *r = data;
	napi_value one;

	if (message->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN))
		return 0;
	netlink_attributes(header + 1, NLMSG_PAYLOAD(message, sizeof(*header)), found, ARRAY_SIZE(found));
	if (napi_create_object(r->env, &one) != napi_ok)
		return -ENOMEM;
	set(r->env, one, "family", give_text(r->env, family_name(header->nfgen_family)));
	set(r->env, one, "table", give_text(r->env, netlink_text(found[NFTA_CHAIN_TABLE])));
	set(r->env, one, "name", give_text(r->env, netlink_text(found[NFTA_CHAIN_NAME])));
	napi_set_element(r->env, r->chains, r->count++, one);
	return 0;
}

static void forget_chains(void *data)
{
	struct reading *r = data;

	r->count = 0;
	napi_create_array(r->env, &r->chains);
}

static napi_value nft_chains(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "nft_chains");
	struct reading r = { .env = env };
	struct {
		struct nlmsghdr header;
		struct nfgenmsg body;
	} request = {
		.header = { .nlmsg_len = sizeof(request), .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN },
		.body = { .nfgen_family = NFPROTO_UNSPEC, .version = NFNETLINK_V0 },
	};
	int sock = netlink_open(NETLINK_NETFILTER, 0), error;

	forget_chains(&r);
	error = sock < 0 ? sock : netlink_dump(sock, &request.header, take_chain, forget_chains, &r);
	if (sock >= 0)
		close(sock);
	/* A kernel without nftables has no chains. */
	if (error && error != -EOPNOTSUPP && error != -EPROTONOSUPPORT && error != -EINVAL)
		fail(&c, error, "");
	return c.failed ? NULL : r.chains;
}

const struct function nft_functions[] = { { "nftChains", nft_chains } };
const size_t nft_function_count = ARRAY_SIZE(nft_functions);
