/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network devices of the calling process's namespace. Everything comes from sockets: /sys may show another
 * namespace's devices.
 */
#define _GNU_SOURCE
#include "maglane.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct own_address {
	uint32_t index;
	char text[INET6_ADDRSTRLEN + 4]; /* "10.0.0.1/24" */
};

/* One reading: all addresses first, then device by device with its own among them. */
struct reading {
	napi_env env;
	int ioctls;
	struct own_address *addresses;
	size_t address_count, address_room;
	napi_value devices;
	uint32_t device_count;
};

static void forget_addresses(void *data)
{
	((struct reading *)data)->address_count = 0;
}

static int take_address(const struct nlmsghdr *message, void *data)
{
	const struct ifaddrmsg *header = NLMSG_DATA(message);
	const struct nlattr *found[IFA_MAX + 1], *attribute;
	size_t want = header->ifa_family == AF_INET ? 4 : 16;
	struct reading *r = data;
	struct own_address *own;

	if (message->nlmsg_type != RTM_NEWADDR || (header->ifa_family != AF_INET && header->ifa_family != AF_INET6))
		return 0;
	netlink_attributes(IFA_RTA(header), IFA_PAYLOAD(message), found, ARRAY_SIZE(found));
	attribute = found[IFA_LOCAL] ? found[IFA_LOCAL] : found[IFA_ADDRESS]; /* with a peer, that is the other one */
	if (!attribute || attribute->nla_len < NLA_HDRLEN + want)
		return 0;
	if (r->address_count == r->address_room) {
		size_t room = r->address_room ? 2 * r->address_room : 64;
		void *grown = reallocarray(r->addresses, room, sizeof(*r->addresses));

		if (!grown)
			return -ENOMEM;
		r->addresses = grown;
		r->address_room = room;
	}
	own = &r->addresses[r->address_count++];
	own->index = header->ifa_index;
	inet_ntop(header->ifa_family, netlink_data(attribute), own->text, INET6_ADDRSTRLEN);
	snprintf(own->text + strlen(own->text), 5, "/%u", header->ifa_prefixlen);
	return 0;
}

static napi_value give_addresses(const struct reading *r, uint32_t index)
{
	napi_value result = NULL;
	uint32_t count = 0;

	napi_create_array(r->env, &result);
	for (size_t i = 0; i < r->address_count; i++)
		if (r->addresses[i].index == index)
			napi_set_element(r->env, result, count++, give_text(r->env, r->addresses[i].text));
	return result;
}

static void mac_text(const struct nlattr *address, char text[18])
{
	static const uint8_t none[6];
	const uint8_t *m;

	text[0] = '\0';
	if (!address || address->nla_len != NLA_HDRLEN + sizeof(none))
		return;
	m = netlink_data(address);
	if (memcmp(m, none, sizeof(none)) != 0)
		snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

/* "virtio_net"; "" for the few that have none, such as loopback. */
static napi_value give_driver(napi_env env, int sock, const char *device)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request = { .ifr_data = (void *)&driver };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	if (ioctl(sock, SIOCETHTOOL, &request) != 0)
		driver.driver[0] = '\0';
	driver.driver[sizeof(driver.driver) - 1] = '\0';
	return give_text(env, driver.driver);
}

static int take_device(const struct nlmsghdr *message, void *data)
{
	const struct ifinfomsg *header = NLMSG_DATA(message);
	const struct nlattr *found[IFLA_LINK_NETNSID + 1], *info[IFLA_INFO_KIND + 1] = { 0 };
	struct reading *r = data;
	napi_env env = r->env;
	const char *name, *kind;
	char mac[18];
	napi_value one;

	if (message->nlmsg_type != RTM_NEWLINK)
		return 0;
	netlink_attributes(IFLA_RTA(header), IFLA_PAYLOAD(message), found, ARRAY_SIZE(found));
	if (found[IFLA_LINKINFO])
		netlink_attributes(netlink_data(found[IFLA_LINKINFO]), found[IFLA_LINKINFO]->nla_len - NLA_HDRLEN, info,
				   ARRAY_SIZE(info));
	if (napi_create_object(env, &one) != napi_ok)
		return -ENOMEM;
	name = netlink_text(found[IFLA_IFNAME]);
	kind = netlink_text(info[IFLA_INFO_KIND]); /* only virtual devices have one */
	mac_text(found[IFLA_ADDRESS], mac);
	set(env, one, "name", give_text(env, name));
	set(env, one, "index", give_number(env, header->ifi_index));
	set(env, one, "mtu", give_number(env, netlink_u32(found[IFLA_MTU])));
	set(env, one, "up", give_bool(env, header->ifi_flags & IFF_UP));
	set(env, one, "loopback", give_bool(env, header->ifi_flags & IFF_LOOPBACK));
	set(env, one, "ethernet", give_bool(env, header->ifi_type == ARPHRD_ETHER || header->ifi_type == ARPHRD_LOOPBACK));
	set(env, one, "mac", give_text(env, mac));
	set(env, one, "driver", *kind ? give_text(env, kind) : give_driver(env, r->ioctls, name));
	set(env, one, "master", give_number(env, netlink_u32(found[IFLA_MASTER])));
	set(env, one, "peerElsewhere", give_bool(env, found[IFLA_LINK_NETNSID]));
	set(env, one, "addresses", give_addresses(r, header->ifi_index));
	napi_set_element(env, r->devices, r->device_count++, one);
	return 0;
}

static void forget_devices(void *data)
{
	struct reading *r = data;

	r->device_count = 0;
	napi_create_array(r->env, &r->devices);
}

static int read_devices(struct reading *r, int sock)
{
	struct {
		struct nlmsghdr header;
		struct ifaddrmsg body;
	} addresses = { .header = { .nlmsg_len = sizeof(addresses), .nlmsg_type = RTM_GETADDR } };
	struct {
		struct nlmsghdr header;
		struct ifinfomsg body;
		struct nlattr mask;
		uint32_t bits;
	} devices = {
		.header = { .nlmsg_len = sizeof(devices), .nlmsg_type = RTM_GETLINK },
		.mask = { .nla_len = NLA_HDRLEN + sizeof(uint32_t), .nla_type = IFLA_EXT_MASK },
		.bits = RTEXT_FILTER_SKIP_STATS,
	};
	int error = netlink_dump(sock, &addresses.header, take_address, forget_addresses, r);

	return error ? error : netlink_dump(sock, &devices.header, take_device, forget_devices, r);
}

static napi_value interfaces(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "interfaces");
	struct reading r = { .env = env, .ioctls = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
	int sock = r.ioctls < 0 ? -errno : netlink_open(NETLINK_ROUTE, 0);
	int error = sock < 0 ? sock : read_devices(&r, sock);

	if (error)
		fail(&c, error, "");
	free(r.addresses);
	if (sock >= 0)
		close(sock);
	if (r.ioctls >= 0)
		close(r.ioctls);
	return c.failed ? NULL : r.devices;
}

static napi_value delete_interface(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "delete_interface");
	uint32_t index = arg_number(&c, 0, "ifindex", 1, INT32_MAX);
	struct {
		struct nlmsghdr header;
		struct ifinfomsg body;
	} request = { .header = { .nlmsg_len = sizeof(request), .nlmsg_type = RTM_DELLINK }, .body.ifi_index = index };
	char device[32];
	int sock, error;

	if (c.failed)
		return NULL;
	device_name(index, device);
	sock = netlink_open(NETLINK_ROUTE, 0);
	error = sock < 0 ? sock : netlink_request(sock, &request.header);
	if (error)
		fail(&c, error, device);
	if (sock >= 0)
		close(sock);
	return NULL;
}

/* What has changed is not told: whoever wants to know reads it all, and a burst of changes is read once. */
static bool take_changes(napi_env env, napi_value callback, void *data)
{
	const int sock = *(int *)data;
	napi_value receiver;
	char room[1];

	/* ENOBUFS: more has changed than the socket could hold. That is a change, too. */
	while (recv(sock, room, sizeof(room), MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno == ENOBUFS || errno == EINTR)
		;
	napi_get_undefined(env, &receiver);
	if (napi_call_function(env, receiver, callback, 0, NULL, NULL) != napi_ok)
		report_exception(env);
	return false;
}

static void free_changes(void *data)
{
	close(*(int *)data);
	free(data);
}

static napi_value watch_interfaces(napi_env env, napi_callback_info info)
{
	static const struct watch_kind kind = { "maglane:links", take_changes, free_changes };
	struct call c = call_begin(env, info, "watch_interfaces");
	int *sock = malloc(sizeof(*sock));
	struct watch *watch;

	if (!sock) {
		fail(&c, ENOMEM, "");
		return NULL;
	}
	*sock = netlink_open(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
	if (*sock >= 0)
		return watch_start(&c, 0, *sock, &kind, sock, &watch);
	fail(&c, *sock, "");
	free(sock);
	return NULL;
}

const struct function interface_functions[] = {
	{ "interfaces", interfaces },
	{ "deleteInterface", delete_interface },
	{ "watchInterfaces", watch_interfaces },
};
const size_t interface_function_count = ARRAY_SIZE(interface_functions);
